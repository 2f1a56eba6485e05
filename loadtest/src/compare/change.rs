//! One value, before and after: by how much it changed, and whether that is good.

use crate::report::Better;

pub(super) struct Value {
    pub(super) title: String,
    pub(super) value: f64,
    pub(super) better: Better,
    /// What differs by less is the same, whatever that is in percent.
    pub(super) least: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Better,
    Worse,
    Same,
    /// Nobody can say which way it should go.
    NotJudged,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    /// None if it was 0 before, and is not any more.
    pub(super) percent: Option<f64>,
    pub(super) verdict: Verdict,
    /// Percent by which it became worse; infinite if it was 0. 0 if it did not.
    pub(super) worse_by: f64,
}

impl Value {
    /// The same thing by another measure: a multiple, for which a least difference in milliseconds means nothing.
    pub(super) fn with(&self, value: f64) -> Self {
        Self {
            title: self.title.clone(),
            value,
            better: self.better,
            least: 0.0,
        }
    }
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same | Self::NotJudged => "",
        }
    }
}

impl Change {
    pub(super) fn judge(before: &Value, after: &Value, noise: f64) -> Self {
        let difference = after.value - before.value;
        let percent = if difference == 0.0 {
            Some(0.0)
        } else {
            (before.value != 0.0).then(|| 100.0 * difference / before.value.abs())
        };
        let size = percent.map_or(f64::INFINITY, f64::abs);
        let rises = match (before.better, after.better) {
            (Better::Lower, Better::Lower) => Verdict::Worse,
            (Better::Higher, Better::Higher) => Verdict::Better,
            _ => Verdict::NotJudged,
        };
        let verdict = match rises {
            Verdict::NotJudged => Verdict::NotJudged,
            _ if size <= noise || difference.abs() < before.least => Verdict::Same,
            _ if (difference > 0.0) == (rises == Verdict::Better) => Verdict::Better,
            _ => Verdict::Worse,
        };
        Self {
            percent,
            verdict,
            worse_by: if verdict == Verdict::Worse { size } else { 0.0 },
        }
    }

    pub(super) fn text(&self) -> String {
        match self.percent {
            None => "from 0".to_owned(),
            Some(percent) if percent.abs() < 0.05 => "0.0 %".to_owned(),
            Some(percent) => format!("{percent:+.1} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(before: f64, after: f64, better: Better) -> Change {
        let value = |value| Value {
            title: String::new(),
            value,
            better,
            least: 0.0,
        };
        Change::judge(&value(before), &value(after), 5.0)
    }

    #[test]
    fn the_way_that_a_number_should_go_decides() {
        use Better::{Higher, Lower, Neither};
        for (before, after, better, verdict) in [
            (100.0, 106.0, Lower, Verdict::Worse),
            (100.0, 94.0, Lower, Verdict::Better),
            (100.0, 106.0, Higher, Verdict::Better),
            (100.0, 94.0, Higher, Verdict::Worse),
            (100.0, 105.0, Lower, Verdict::Same),
            (100.0, 95.0, Higher, Verdict::Same),
            (100.0, 200.0, Neither, Verdict::NotJudged),
            (-100.0, -110.0, Lower, Verdict::Better),
            (-100.0, -90.0, Lower, Verdict::Worse),
        ] {
            let change = judge(before, after, better);
            assert_eq!(change.verdict, verdict, "{before} {after} {better:?}");
        }
        assert_eq!(judge(100.0, 94.0, Higher).text(), "-6.0 %");
        assert!((judge(100.0, 94.0, Higher).worse_by - 6.0).abs() < 1e-9);
        assert_eq!(judge(100.0, 94.0, Lower).worse_by, 0.0);
    }

    #[test]
    fn from_nothing_there_is_no_percentage_but_a_verdict() {
        let change = judge(0.0, 3.0, Better::Lower);
        assert_eq!((change.percent, change.verdict), (None, Verdict::Worse));
        assert_eq!(
            (change.worse_by, change.text()),
            (f64::INFINITY, "from 0".to_owned())
        );
        let nothing = judge(0.0, 0.0, Better::Lower);
        assert_eq!(
            (nothing.percent, nothing.verdict),
            (Some(0.0), Verdict::Same)
        );
        assert_eq!(judge(3.0, 0.0, Better::Lower).verdict, Verdict::Better);
    }

    #[test]
    fn less_than_the_least_is_the_same() {
        let value = |value| Value {
            title: String::new(),
            value,
            better: Better::Lower,
            least: 0.05,
        };
        let verdict = |before, after| Change::judge(&value(before), &value(after), 5.0).verdict;
        assert_eq!(verdict(0.0, 0.04), Verdict::Same);
        assert_eq!(verdict(0.0, 0.06), Verdict::Worse);
    }
}
