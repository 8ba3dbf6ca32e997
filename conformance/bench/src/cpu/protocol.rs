//! What the measured program prints (`conformance/bench/guest/README.md`): lines that begin with
//! `@bench`, among whatever else a kernel or firmware says on the same serial port.

use anyhow::{Context, Result, bail};

const MARK: &str = "@bench ";

/// One line of the measured program. Times are of its own `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// The program runs.
    Begin { at_ns: u64 },
    /// A workload is warm, its measurement begins.
    Start { name: String },
    /// A workload is measured.
    Measured(Measured),
    /// This processor can't run the workload.
    Skip { name: String },
    /// The same work gave two results.
    Wrong { name: String },
    /// A call of the system failed that must not.
    Failed { what: String },
    /// All is measured.
    End { at_ns: u64 },
}

/// One measurement of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) class: Class,
    pub(super) unit: String,
    /// Units done.
    pub(super) units: u64,
    /// Time that they took.
    pub(super) ns: u64,
    /// Checksum of the work's result.
    pub(super) sum: u64,
}

impl Measured {
    /// Nanoseconds per unit.
    pub(super) fn ns_per_unit(&self) -> f64 {
        self.ns as f64 / self.units.max(1) as f64
    }
}

/// Workloads whose slowdowns are averaged together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Integer,
    Vector,
    Os,
    /// Only their ratio to each other counts.
    Parallel,
}

impl Class {
    /// Those that a table shows, in its order.
    pub(super) const SHOWN: [Self; 3] = [Self::Integer, Self::Vector, Self::Os];

    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "integer" => Self::Integer,
            "vector" => Self::Vector,
            "os" => Self::Os,
            "parallel" => Self::Parallel,
            _ => return None,
        })
    }

    /// For JSON.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Vector => "vector",
            Self::Os => "os",
            Self::Parallel => "parallel",
        }
    }

    /// For a person.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Vector => "floating point and vector",
            Self::Os => "OS events",
            Self::Parallel => "parallel",
        }
    }
}

/// Reads a line; nothing when it isn't the program's.
///
/// # Errors
/// When it is the program's and can't be understood, for example because the kernel has printed
/// into it.
pub(super) fn parse(line: &str) -> Result<Option<Line>> {
    let Some((_, said)) = line.split_once(MARK) else { return Ok(None) };
    let said = said.trim_end();
    understood(said).with_context(|| format!("can't read the guest's line `{said}`")).map(Some)
}

fn understood(said: &str) -> Result<Line> {
    let (body, at) = said.rsplit_once(" t=").context("it has no time")?;
    let at_ns = at.parse().context("its time is no number")?;
    let (kind, rest) = body.split_once(' ').unwrap_or((body, ""));
    let name = || rest.to_owned();
    Ok(match kind {
        "begin" => Line::Begin { at_ns },
        "end" => Line::End { at_ns },
        "start" => Line::Start { name: name() },
        "skip" => Line::Skip { name: name() },
        "wrong" => Line::Wrong { name: name() },
        "failed" => Line::Failed { what: name() },
        "result" => Line::Measured(measured(rest)?),
        _ => bail!("it is of an unknown kind"),
    })
}

fn measured(text: &str) -> Result<Measured> {
    let (name, fields) = text.split_once(' ').context("it has no fields")?;
    let field = |key: &str| {
        fields
            .split(' ')
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .with_context(|| format!("it lacks `{key}`"))
    };
    let number = |key: &str| field(key)?.parse().with_context(|| format!("`{key}` is no number"));
    Ok(Measured {
        name: name.to_owned(),
        class: Class::from_word(field("class")?).context("its class is unknown")?,
        unit: field("unit")?.to_owned(),
        units: number("units")?,
        ns: number("ns")?,
        sum: u64::from_str_radix(field("sum")?, 16).context("`sum` is no hexadecimal number")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_with_all_its_fields() {
        let line = "@bench result sha256 class=integer unit=byte units=400 ns=1000 sum=00ff t=9\r";

        let read = parse(line).unwrap();

        let measured = Measured {
            name: "sha256".to_owned(),
            class: Class::Integer,
            unit: "byte".to_owned(),
            units: 400,
            ns: 1000,
            sum: 0xFF,
        };
        assert_eq!(measured.ns_per_unit(), 2.5);
        assert_eq!(read, Some(Line::Measured(measured)));
    }

    #[test]
    fn firmware_may_leave_its_escapes_before_the_first_line() {
        assert_eq!(
            parse("\u{1b}[2J\u{1b}[1;1H@bench begin t=77").unwrap(),
            Some(Line::Begin { at_ns: 77 })
        );
    }

    #[test]
    fn what_others_print_is_nothing() {
        assert_eq!(parse("[    0.1] Freeing unused memory").unwrap(), None);
    }

    #[test]
    fn a_failure_keeps_its_words() {
        assert_eq!(
            parse("@bench failed round trip t=5").unwrap(),
            Some(Line::Failed { what: "round trip".to_owned() })
        );
    }

    #[test]
    fn a_damaged_line_is_an_error_that_shows_it() {
        for line in [
            "@bench result sha256 class=integer unit=by[ 1.5] oops",
            "@bench result sha256 class=integer unit=byte units=x ns=1 sum=0 t=1",
            "@bench result sha256 class=new unit=byte units=1 ns=1 sum=0 t=1",
            "@bench result sha256 t=1",
            "@bench begin",
            "@bench dance t=1",
        ] {
            let error = format!("{:#}", parse(line).unwrap_err());

            assert!(error.contains(line.trim_start_matches(MARK)), "{error}");
        }
    }
}
