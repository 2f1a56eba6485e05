//! The serializer version that a client names in the query of its URL.

/// How messages are written on one socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// One JSON object per message, text frames only.
    V1,
    /// One JSON array per message, and binary frames for broadcasts.
    V2,
}

impl Version {
    /// Reads the `vsn` parameter. Only a full three-part `1.0.x` or `2.0.x` is one; without the parameter it is `1.0.0`.
    pub fn parse(vsn: &str) -> Option<Version> {
        let (version, patch) = if let Some(patch) = vsn.strip_prefix("1.0.") {
            (Version::V1, patch)
        } else {
            (Version::V2, vsn.strip_prefix("2.0.")?)
        };
        let digits = !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = patch.len() > 1 && patch.starts_with('0');
        (digits && !leading_zero).then_some(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_versions_of_the_two_serializers_are_known() {
        for vsn in ["1.0.0", "1.0.7", "1.0.10"] {
            assert_eq!(Version::parse(vsn), Some(Version::V1), "{vsn}");
        }
        for vsn in ["2.0.0", "2.0.3"] {
            assert_eq!(Version::parse(vsn), Some(Version::V2), "{vsn}");
        }
        for vsn in [
            "", "1", "1.0", "2.0", "2.0.", "3.0.0", "1.1.0", "2.0.x", "2.0.01", " 2.0.0", "2.0.0 ",
            "2.0.0.0", "2.0.-1",
        ] {
            assert_eq!(Version::parse(vsn), None, "{vsn}");
        }
    }
}
