//! What the host's `/proc` says about a process that is measured.

use std::fs;

use serde_json::Value;

/// Linux counts times in `/proc` in hundredths of a second on every machine that this runs on
/// (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;

/// Processor time of a process and of its children that it has waited for, in nanoseconds.
///
/// The scheduler's statistics of its threads are exact but forget threads that have ended; the
/// process's own counters forget nothing but step by 10 ms and never run ahead. So the greater of
/// the two is the better one.
pub(super) fn cpu_ns(pid: u32) -> Option<u64> {
    let ticks = ticks_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let threads = threads_ns(pid).unwrap_or(0);
    Some((ticks.own + ticks.children).max(threads + ticks.children))
}

fn threads_ns(pid: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    Some(
        threads
            .flatten()
            .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
            .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .sum(),
    )
}

#[derive(Debug, PartialEq, Eq)]
struct Ticks {
    own: u64,
    children: u64,
}

/// Fields 14 to 17 of proc_pid_stat(5), in nanoseconds; the name in field 2 may have spaces in it.
fn ticks_in(stat: &str) -> Option<Ticks> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(|word| word.parse::<u64>().ok());
    let mut next = || Some(ticks.next()?? * TICK_NS);
    Some(Ticks { own: next()? + next()?, children: next()? + next()? })
}

/// Memory that a virtual machine's process holds, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resident {
    /// Of the guest's RAM, what the guest has touched.
    pub(super) guest: u64,
    /// Everything else.
    pub(super) beside: u64,
}

/// Reads it from `/proc/PID/smaps`; the sum is that of `smaps_rollup` at the same moment.
pub(super) fn resident(pid: u32, guest_bytes: u64) -> Option<Resident> {
    resident_in(&fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?, guest_bytes / 1024)
}

/// A mapping is guest RAM when its size is exactly that of guest RAM, or when it is of the same file
/// as such a mapping. Proportional sizes (`Pss`) are added, so that a page that is mapped twice
/// counts once.
fn resident_in(smaps: &str, guest_kib: u64) -> Option<Resident> {
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in smaps.lines() {
        if let Some(kib) = kib_of(line, "Size:") {
            mappings.last_mut()?.size = kib;
        } else if let Some(kib) = kib_of(line, "Pss:") {
            mappings.last_mut()?.pss = kib;
        } else if line.split_whitespace().next().is_some_and(|word| !word.ends_with(':')) {
            mappings.push(Mapping { file: file_of(line), size: 0, pss: 0 });
        }
    }
    let files: Vec<&str> = mappings
        .iter()
        .filter(|one| one.size == guest_kib && !one.file.is_empty())
        .map(|one| one.file)
        .collect();
    let is_guest = |one: &Mapping<'_>| one.size == guest_kib || files.contains(&one.file);
    if !mappings.iter().any(is_guest) {
        return None;
    }
    let guest = mappings.iter().filter(|one| is_guest(one)).map(|one| one.pss).sum();
    let all: u64 = mappings.iter().map(|one| one.pss).sum();
    Some(Resident { guest, beside: all - guest })
}

struct Mapping<'a> {
    file: &'a str,
    size: u64,
    pss: u64,
}

/// Inode and path: two files may have the same path when they are deleted.
fn file_of(head: &str) -> &str {
    let words = head.match_indices(' ').nth(3).map(|(at, _)| at + 1);
    let file = words.and_then(|at| head.get(at..)).unwrap_or_default().trim();
    if file.starts_with('0') { "" } else { file }
}

fn kib_of(line: &str, key: &str) -> Option<u64> {
    line.strip_prefix(key)?.split_whitespace().next()?.parse().ok()
}

/// The last line of JSON in `text` that is an event of that name.
pub(super) fn event(text: &str, name: &str) -> Option<Value> {
    text.lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|value| value.get("event").and_then(Value::as_str) == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_a_name_with_spaces_and_brackets() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4 11 0 37 0 197 53 2 1 20 0 3 0 142";

        let expected = Ticks { own: 2_500_000_000, children: 30_000_000 };
        assert_eq!(ticks_in(stat), Some(expected));
    }

    #[test]
    fn this_process_has_had_processor_time() {
        let mut sum = 0u64;
        while cpu_ns(std::process::id()).is_some_and(|ns| ns < 1_000_000) {
            sum = sum.wrapping_mul(31).wrapping_add(1);
        }

        assert!(cpu_ns(std::process::id()).is_some_and(|ns| ns >= 1_000_000), "{sum}");
    }

    const SMAPS: &str = "\
5574-5575 r-xp 00169000 fe:00 10405739                   /usr/bin/vmm\n\
Size:               4096 kB\n\
Pss:                3000 kB\n\
Pss_Dirty:             1 kB\n\
7fc0-7fc1 rw-p 00000000 00:00 0 \n\
Size:              13820 kB\n\
Pss:                 500 kB\n\
VmFlags: rd wr mr mw me ac sd\n\
7fc9-7fd9 rw-s 00000000 00:01 64428                      /memfd:ram (deleted)\n\
Size:             524288 kB\n\
Pss:              100000 kB\n\
8fc9-8fd9 rw-s 00010000 00:01 64428                      /memfd:ram (deleted)\n\
Size:               1024 kB\n\
Pss:                 700 kB\n\
9fc9-9fd9 rw-s 00010000 00:01 64429                      /memfd:ram (deleted)\n\
Size:               1024 kB\n\
Pss:                  40 kB\n";

    #[test]
    fn guest_memory_is_told_from_the_rest_also_where_it_is_mapped_again() {
        let read = resident_in(SMAPS, 524_288);

        assert_eq!(read, Some(Resident { guest: 100_700, beside: 3_540 }));
    }

    #[test]
    fn anonymous_guest_memory_is_known_by_its_size_alone() {
        let read = resident_in(SMAPS, 13_820);

        assert_eq!(read, Some(Resident { guest: 500, beside: 103_740 }));
    }

    #[test]
    fn without_guest_memory_there_is_no_answer() {
        assert_eq!(resident_in(SMAPS, 99), None);
    }

    #[test]
    fn an_event_is_found_among_other_lines() {
        let text = "noise\n{\"event\":\"start\",\"engine\":\"a\"}\n{\"event\":\"end\"}\n";

        let engine = event(text, "start").unwrap().get("engine").cloned();

        assert_eq!(engine, Some(Value::from("a")));
    }
}
