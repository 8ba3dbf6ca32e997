//! The real-time clock's registers as seconds (Motorola MC146818A).

/// What the clock's registers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockRegisters {
    /// 0 to 59.
    pub second: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 23, or 1 to 12 with bit 7 for the afternoon.
    pub hour: u8,
    /// 1 to 31.
    pub day: u8,
    /// 1 to 12.
    pub month: u8,
    /// 0 to 99.
    pub year: u8,
    /// Register B: bit 2 is binary (else BCD), bit 1 is 24 hours.
    pub status_b: u8,
}

impl ClockRegisters {
    /// Seconds since 1970-01-01; the years are those from 2000 on. The clock is taken to be UTC.
    #[must_use]
    pub fn unix_seconds(&self) -> u64 {
        let number = |raw: u8| -> u64 {
            let raw = u64::from(raw);
            if self.status_b & 4 != 0 { raw } else { (raw >> 4) * 10 + (raw & 15) }
        };
        let afternoon = self.hour & 0x80 != 0;
        let mut hour = number(self.hour & 0x7F);
        if self.status_b & 2 == 0 {
            hour = hour % 12 + if afternoon { 12 } else { 0 };
        }
        let days = days_since_1970(2000 + number(self.year), number(self.month), number(self.day));
        ((days * 24 + hour) * 60 + number(self.minute)) * 60 + number(self.second)
    }
}

/// Days of the Gregorian calendar, with years that begin in March.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let month = month.clamp(1, 12);
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    (year * 365 + leap_days + (month * 153 + 2) / 5 + day).saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: ClockRegisters = ClockRegisters {
        second: 0x56,
        minute: 0x34,
        hour: 0x12,
        day: 0x24,
        month: 0x11,
        year: 0x26,
        status_b: 2,
    };

    #[test]
    fn bcd_binary_and_twelve_hours_are_the_same_moment() {
        let binary = ClockRegisters {
            second: 56,
            minute: 34,
            hour: 12,
            day: 24,
            month: 11,
            year: 26,
            status_b: 6,
        };
        let twelve = ClockRegisters { hour: 0x92, status_b: 0, ..NOON };
        let midnight = ClockRegisters { hour: 0x12, status_b: 0, ..NOON };

        assert_eq!(NOON.unix_seconds(), 1_795_523_696);
        assert_eq!(binary.unix_seconds(), NOON.unix_seconds());
        assert_eq!(twelve.unix_seconds(), NOON.unix_seconds());
        assert_eq!(midnight.unix_seconds(), NOON.unix_seconds() - 12 * 3600);
    }

    #[test]
    fn leap_years_are_counted() {
        assert_eq!(days_since_1970(2000, 3, 1) - days_since_1970(2000, 2, 28), 2);
        assert_eq!(days_since_1970(2100, 3, 1) - days_since_1970(2100, 2, 28), 1);
        assert_eq!(days_since_1970(1970, 1, 1), 0);
    }
}
