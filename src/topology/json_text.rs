//! Implements the conversions between a type and its text: [`json_text`].

/// Implements the conversions that serde needs for a type whose JSON is its text.
///
/// The type implements `FromStr` and `Display`, and has the attribute `serde(try_from = "String", into = "String")`.
macro_rules! json_text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = <Self as std::str::FromStr>::Err;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
pub(crate) use json_text;
