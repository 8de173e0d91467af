//! Encodes and decodes the integers and attributes of netlink messages (netlink(7)), in the machine's byte order.

use rtnetlink::packet_core::{DefaultNla, Emitable, Nla, NlasIterator};

/// The type of an attribute and its value.
pub(super) type Attribute = (u16, Vec<u8>);

/// Finds the first item of a list that matches a pattern, and evaluates an expression with the pattern's variables.
macro_rules! first {
    ($list:expr, $pattern:pat $(if $guard:expr)? => $value:expr) => {
        $list.iter().find_map(|item| match item {
            $pattern $(if $guard)? => Some($value),
            _ => None,
        })
    };
}
pub(super) use first;

/// The 16-bit integer at an offset.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The 32-bit integer at an offset.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The bytes as one 64-bit integer.
pub(super) fn read_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// The bytes as `N` 32-bit integers.
pub(super) fn read<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let (words, []) = bytes.as_chunks::<4>() else { return None };
    Some(<[[u8; 4]; N]>::try_from(words).ok()?.map(u32::from_ne_bytes))
}

/// The bytes of 32-bit integers.
pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The bytes of attributes, one after the other.
pub(super) fn nested(attributes: &[Attribute]) -> Vec<u8> {
    let attributes: Vec<_> = attributes.iter().map(|(kind, value)| DefaultNla::new(*kind, value.clone())).collect();
    let mut bytes = vec![0; attributes.as_slice().buffer_len()];
    attributes.as_slice().emit(&mut bytes);
    bytes
}

/// The attributes in the bytes, up to the first malformed attribute.
pub(super) fn attributes(bytes: &[u8]) -> Vec<Attribute> {
    let attributes = NlasIterator::new(bytes).map_while(Result::ok);
    attributes.map(|attribute| (attribute.kind(), attribute.value().to_vec())).collect()
}

/// The value of the first attribute of a type.
pub(super) fn find(attributes: &[Attribute], kind: u16) -> Option<&[u8]> {
    first!(attributes, (other, value) if *other == kind => value.as_slice())
}

/// The value of an attribute that `netlink-packet-route` has parsed.
pub(super) fn value(attribute: &impl Nla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes
}
