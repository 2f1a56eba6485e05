//! One example of each thing that a client can be refused with, for lists that must be complete, as a catalogue of errors is.
//!
//! A kind that is added elsewhere and not here does not compile.

use crate::binding::BindingRefusal;
use crate::filter::FilterError;
use crate::reply::Refusal;
use crate::resume::ResumeError;

macro_rules! examples {
    ($kind:ident { $($variant:ident $(($value:expr))? $({ $($field:ident: $content:expr),* })?),* $(,)? }) => {
        impl $kind {
            /// One of each kind. What varies in a text is `…`.
            pub fn examples() -> Vec<$kind> {
                // Says that none is missing: the compiler checks it.
                let _complete = |one: &$kind| match one {
                    $($kind::$variant { .. } => {})*
                };
                vec![$($kind::$variant $(($value))? $({ $($field: $content),* })?),*]
            }
        }
    };
}

fn any() -> String {
    "…".to_owned()
}

examples!(Refusal {
    TopicNameRequired,
    UnmatchedTopic,
    PrivateOnly,
    TooManyConnections,
    TooManyJoins,
    TooManyChannels,
    TokenExpired { seconds_ago: 7 },
    MissingClaims,
    MalformedJwt,
    JwtSignature,
    JwtSigner { kid: Some(any()) },
    Unauthorized { topic: any() },
    ReplayOnPublicChannel,
    ReplayParams,
    ReplayFailed,
    DatabaseUnavailable,
    PoliciesUnavailable,
    IncreaseConnectionPool,
    DatabaseLackOfConnections,
    DatabaseConnectionRate,
    Initializing,
    QueryCanceled,
    MissingPartition,
    Restarting,
    Disabled,
    TenantNotFound,
    SubscribeTimeout,
    BadBindings { message: any() },
    Resume(ResumeError::Expired),
    Unknown,
    Fault { message: any() },
    JoinCrashed,
});

examples!(ResumeError {
    Expired,
    Foreign,
    Invalid,
    History(any()),
    Limit,
});

examples!(BindingRefusal {
    Filter(FilterError::EmptySegment),
    Select,
    SelectOnWildcard,
    NoParams { binding: any() },
    NoTable { params: any() },
    Exception { params: any(), error: any() },
    DatabaseTimeouts,
});

examples!(FilterError {
    Syntax { parts: vec![any()] },
    InWithoutParentheses,
    EmptySegment,
});

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_refusals_are_told_or_counted_as_the_same() {
        let refusals = Refusal::examples();
        let texts: HashSet<_> = refusals.iter().map(Refusal::to_string).collect();
        let labels: HashSet<_> = refusals.iter().map(Refusal::label).collect();
        assert_eq!(
            (texts.len(), labels.len()),
            (refusals.len(), refusals.len())
        );
    }
}
