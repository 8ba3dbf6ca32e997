//! Days and dates of the proleptic Gregorian calendar.

/// A moment as the clock's registers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: u8,
    /// 1 to 31.
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
}

/// Days in 400 years.
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

impl Moment {
    /// The moment `seconds` after 1970-01-01.
    pub(crate) fn from_seconds(seconds: i64) -> Self {
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years are counted from March, so that the leap day is a year's last.
        let shifted = days.wrapping_add(EPOCH_DAYS);
        let (era, of_era) = (shifted.div_euclid(ERA_DAYS), shifted.rem_euclid(ERA_DAYS));
        let year_of_era =
            (of_era - of_era / 1_460 + of_era / 36_524 - of_era / (ERA_DAYS - 1)) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: month as u8,
            day: (of_year - (153 * march_month + 2) / 5 + 1) as u8,
            hour: (of_day / 3_600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }

    /// Seconds since 1970-01-01. Fields out of their range count on: month 13 is next January.
    pub(crate) fn to_seconds(self) -> i64 {
        let months = i64::from(self.month) - 1;
        let year = self.year + months.div_euclid(12);
        let month = months.rem_euclid(12);
        let march_year = if month < 2 { year - 1 } else { year };
        let march_month = if month < 2 { month + 10 } else { month - 2 };
        let (era, of_era) = (march_year.div_euclid(400), march_year.rem_euclid(400));
        let days = era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100
            + (153 * march_month + 2) / 5
            + i64::from(self.day)
            - 1
            - EPOCH_DAYS;
        days * 86_400
            + i64::from(self.hour) * 3_600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
    }
}

/// Day of the week, 1 is Sunday.
pub(crate) fn weekday(seconds: i64) -> u8 {
    // 1970-01-01 was a Thursday.
    (seconds.div_euclid(86_400).wrapping_add(4).rem_euclid(7) + 1) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_dates() {
        let leap = Moment { year: 2024, month: 2, day: 29, hour: 23, minute: 59, second: 59 };
        assert_eq!(leap.to_seconds(), 1_709_251_199);
        assert_eq!(Moment::from_seconds(1_709_251_199), leap);
        assert_eq!(Moment::from_seconds(0).year, 1970);
        assert_eq!(weekday(0), 5);
        assert_eq!(weekday(1_709_251_199), 5);
    }

    proptest! {
        #[test]
        fn seconds_and_moments_are_one_to_one(seconds in -62_000_000_000i64..253_000_000_000) {
            prop_assert_eq!(Moment::from_seconds(seconds).to_seconds(), seconds);
        }
    }
}
