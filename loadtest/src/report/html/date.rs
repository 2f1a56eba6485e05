//! Moments as people write them.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAY: u64 = 86_400;

/// `28 November 2026, 16:40 UTC`, of seconds since 1970.
pub(super) fn date(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / DAY);
    let minutes = seconds % DAY / 60;
    let month = MONTHS[month as usize - 1];
    format!(
        "{day} {month} {year}, {:02}:{:02} UTC",
        minutes / 60,
        minutes % 60
    )
}

/// Year, month and day of days since 1970. Counted from a first of March, so that the day that some years have more is a
/// year's last; 400 years have always the same number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_days_are_where_they_belong() {
        assert_eq!(date(0), "1 January 1970, 00:00 UTC");
        assert_eq!(date(951_782_400), "29 February 2000, 00:00 UTC");
        assert_eq!(date(951_868_799), "29 February 2000, 23:59 UTC");
        assert_eq!(date(1_795_884_000), "28 November 2026, 16:40 UTC");
        assert_eq!(date(4_107_542_400), "1 March 2100, 00:00 UTC");
    }
}
