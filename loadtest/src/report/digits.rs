//! Numbers for people: no more digits than matter, and as many for all values of a figure.

/// Digits after the point of the values of one figure, so that they can be compared in a column.
pub(crate) struct Digits(usize);

/// A value that stands alone.
pub(crate) fn number(value: f64) -> String {
    Digits::of([value]).text(value)
}

impl Digits {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut most, mut all_whole) = (0.0_f64, true);
        for value in values.into_iter().filter(|value| value.is_finite()) {
            most = most.max(value.abs());
            all_whole &= is_whole(value);
        }
        Self(match most {
            _ if all_whole || most >= 1000.0 => 0,
            _ if most >= 100.0 => 1,
            _ if most >= 1.0 => 2,
            _ => 4,
        })
    }

    /// Thousands apart. A value that is much smaller than the others keeps two digits that matter.
    pub(crate) fn text(&self, value: f64) -> String {
        let size = value.abs();
        if !value.is_finite() {
            return "-".to_owned();
        }
        if size == 0.0 {
            return "0".to_owned();
        }
        if size < 0.001 {
            return format!("{value:.2e}");
        }
        let needed = if size < 1.0 {
            (-size.log10()).ceil() as usize + 1
        } else {
            0
        };
        let digits = self.0.max(needed.min(4));
        let text = format!("{size:.digits$}");
        let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        let mut number = String::new();
        if value < 0.0 {
            number.push('-');
        }
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) {
                number.push(',');
            }
            number.push(digit);
        }
        number + rest
    }
}

/// Sums of decimal fractions are a little beside what they should be.
fn is_whole(value: f64) -> bool {
    (value - value.round()).abs() <= value.abs() * 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_matter() {
        let told = [
            0.0,
            7.0,
            5.999_999_999_999_99,
            1_234_567.0,
            1234.5,
            123.45,
            12.345,
            0.123_45,
            0.000_012_3,
            -2500.0,
            -0.5,
        ]
        .map(number);
        assert_eq!(
            told,
            [
                "0",
                "7",
                "6",
                "1,234,567",
                "1,234",
                "123.5",
                "12.35",
                "0.1235",
                "1.23e-5",
                "-2,500",
                "-0.5000"
            ]
        );
        assert_eq!(number(f64::NAN), "-");
        assert_eq!(number(-0.0), "0");
    }

    #[test]
    fn the_values_of_a_figure_have_the_same_number_of_digits() {
        let told = |values: &[f64]| {
            let digits = Digits::of(values.iter().copied());
            values
                .iter()
                .map(|value| digits.text(*value))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&[6.0, 5.67, 12.0]), ["6.00", "5.67", "12.00"]);
        assert_eq!(told(&[124.0, 15.36, 0.0]), ["124.0", "15.4", "0"]);
        assert_eq!(told(&[400.0, 700.0]), ["400", "700"]);
        assert_eq!(told(&[5000.5, 0.25, 0.004]), ["5,000", "0.25", "0.0040"]);
        assert_eq!(told(&[]), [""; 0]);
    }
}
