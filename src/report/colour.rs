//! The colour scales of heat maps, which people with colour vision deficiencies can read.

use std::fmt;

/// A colour: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rgb(u8, u8, u8);

/// cividis (Nuñez, Anderton and Renslow, 2018), at ten equidistant points.
const CIVIDIS: [Rgb; 10] = [
    Rgb(0x00, 0x22, 0x4e),
    Rgb(0x12, 0x35, 0x70),
    Rgb(0x3b, 0x49, 0x6c),
    Rgb(0x57, 0x5d, 0x6d),
    Rgb(0x70, 0x71, 0x73),
    Rgb(0x8a, 0x86, 0x78),
    Rgb(0xa5, 0x9c, 0x74),
    Rgb(0xc3, 0xb3, 0x69),
    Rgb(0xe1, 0xcc, 0x55),
    Rgb(0xfe, 0xe8, 0x38),
];

/// Blue, white, orange.
const DIVERGING: [Rgb; 5] =
    [Rgb(0x08, 0x51, 0x9c), Rgb(0x6b, 0xae, 0xd6), Rgb(0xff, 0xff, 0xff), Rgb(0xfd, 0xae, 0x6b), Rgb(0xd9, 0x48, 0x01)];

impl Rgb {
    /// The colour of a magnitude from 0 to 1.
    pub(super) fn of_magnitude(share: f64) -> Self {
        between(&CIVIDIS, share)
    }

    /// The colour of an error from -1 to 1.
    pub(super) fn of_error(share: f64) -> Self {
        between(&DIVERGING, f64::midpoint(share, 1.0))
    }

    /// The colour of text on this colour: black or white, whichever has the higher contrast.
    pub(super) fn ink(self) -> &'static str {
        // Both contrasts are equal at this luminance: (l + 0.05)² = 1.05 × 0.05.
        if self.luminance() > 0.179 { "#000" } else { "#fff" }
    }

    /// The relative luminance (WCAG 2.2).
    fn luminance(self) -> f64 {
        let linear = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.0) + 0.7152 * linear(self.1) + 0.0722 * linear(self.2)
    }
}

impl fmt::Display for Rgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

/// The points of the scale of magnitudes, or of errors.
pub(super) fn points(is_error: bool) -> &'static [Rgb] {
    if is_error { &DIVERGING } else { &CIVIDIS }
}

/// The colour at a share of a scale, by linear interpolation.
fn between(scale: &[Rgb], share: f64) -> Rgb {
    let position = share.clamp(0.0, 1.0) * (scale.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the position is within the scale")]
    let index = (position as usize).min(scale.len() - 2);
    let (low, high) = (scale[index], scale[index + 1]);
    let mix = |low: u8, high: u8| {
        let value = f64::from(low) + (f64::from(high) - f64::from(low)) * (position - index as f64);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is between two bytes")]
        let value = value.round() as u8;
        value
    };
    Rgb(mix(low.0, high.0), mix(low.1, high.1), mix(low.2, high.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_enough_contrast_on_every_colour() {
        let shares = || (0..=1_000).map(|step| f64::from(step) / 1_000.0);
        let errors = shares().map(|share| Rgb::of_error(2.0 * share - 1.0));
        for colour in shares().map(Rgb::of_magnitude).chain(errors) {
            let ink = if colour.ink() == "#000" { 0.0 } else { 1.0 };
            let (dark, light) = (colour.luminance().min(ink), colour.luminance().max(ink));
            assert!((light + 0.05) / (dark + 0.05) >= 4.5, "{colour} has the text colour {}", colour.ink());
        }
        assert_eq!(Rgb::of_error(0.0).to_string(), "#ffffff");
    }
}
