//! The tests of the encoders and decoders.

mod decoding;
mod goldens;
