//! Disks by `fio` on more disks of the guest: what a program on them gets, past the guest's cache
//! (`direct=1`), and through the host's or past that, too.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::guest::{Guest, number_at};
use super::host_file::{Cache, DataFile};
use super::results::Work;
use super::{Options, Place};

const MIB: f64 = 1048576.0;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Access {
    /// As fio says it.
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// 64 KiB after 64 KiB; MiB/s.
    Sequential,
    /// 4 KiB anywhere; IO/s.
    Random,
}

/// One job of fio.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    order: Order,
    access: Access,
    /// How many requests are under way at once.
    depth: u32,
    /// Of the host.
    cache: Cache,
}

const fn sequential(access: Access, depth: u32, cache: Cache) -> Job {
    Job { order: Order::Sequential, access, depth, cache }
}

const fn random(access: Access, depth: u32) -> Job {
    Job { order: Order::Random, access, depth, cache: Cache::Host }
}

pub(super) const JOBS: [Job; 12] = [
    sequential(Access::Read, 1, Cache::None),
    sequential(Access::Read, 16, Cache::None),
    sequential(Access::Write, 1, Cache::None),
    sequential(Access::Write, 16, Cache::None),
    sequential(Access::Read, 1, Cache::Host),
    sequential(Access::Read, 16, Cache::Host),
    sequential(Access::Write, 1, Cache::Host),
    sequential(Access::Write, 16, Cache::Host),
    random(Access::Read, 1),
    random(Access::Read, 32),
    random(Access::Write, 1),
    random(Access::Write, 32),
];

impl Work for Job {
    fn name(&self) -> String {
        let order = match self.order {
            Order::Sequential => "sequential 64 KiB",
            Order::Random => "random 4 KiB",
        };
        let place = match self.cache {
            Cache::Host => "cached",
            Cache::None => "uncached",
        };
        format!("{order} {}, depth {}, {place}", self.access.word(), self.depth)
    }

    fn unit(&self) -> &'static str {
        match self.order {
            Order::Sequential => "MiB/s",
            Order::Random => "IO/s",
        }
    }

    fn places(&self) -> &'static [Place] {
        match self.order {
            Order::Sequential => &[Place::Host, Place::Qemu, Place::Kasane],
            Order::Random => &[Place::Qemu, Place::Kasane],
        }
    }
}

impl Job {
    fn command(&self, seconds: u64) -> String {
        let (prefix, block) = match self.order {
            Order::Sequential => ("", "64k"),
            Order::Random => ("rand", "4k"),
        };
        let (word, depth) = (self.access.word(), self.depth);
        let disk = if self.cache == Cache::Host { "vdb" } else { "vdc" };
        format!(
            "fio --name=job --filename=/dev/{disk} --rw={prefix}{word} --bs={block} \
             --iodepth={depth} --ioengine=libaio --direct=1 --norandommap --thread \
             --time_based --runtime={seconds} --output-format=json"
        )
    }

    /// Where fio's answer has the rate, and how many of it make one of our unit.
    fn rate(&self) -> (String, f64) {
        let word = self.access.word();
        match self.order {
            Order::Sequential => (format!("/jobs/0/{word}/bw_bytes"), MIB),
            Order::Random => (format!("/jobs/0/{word}/iops"), 1.0),
        }
    }
}

/// How it is measured, for a person.
pub(super) fn note(size_mib: u64) -> String {
    format!(
        "fio in the guest (libaio, direct=1) on two more raw disks of {size_mib} MiB, one cached by \
         the host and one not (QEMU: cache=none,aio=native; Kasane: direct); host: pread and pwrite \
         of 64 KiB, one at a time, on files of the same length, the same two ways"
    )
}

/// Two guests, and two files for each and for the host.
pub(super) struct Bench {
    qemu: Guest,
    kasane: Guest,
    files: BTreeMap<(Place, Cache), DataFile>,
}

impl Bench {
    pub(super) fn start(options: &Options, size_mib: u64) -> Result<Self> {
        let mut files = BTreeMap::new();
        for place in [Place::Host, Place::Qemu, Place::Kasane] {
            for cache in [Cache::Host, Cache::None] {
                let file = DataFile::create(place.name(), cache, size_mib)?;
                files.insert((place, cache), file);
            }
        }
        let disks_of = |place| files.range((place, Cache::Host)..=(place, Cache::None));
        let disks_of = |place| disks_of(place).map(|(_, file)| file).collect::<Vec<_>>();
        let mut qemu = Guest::start(options, Place::Qemu, &disks_of(Place::Qemu))?;
        let mut kasane = Guest::start(options, Place::Kasane, &disks_of(Place::Kasane))?;
        qemu.reach_shell().context("qemu")?;
        kasane.reach_shell().context("kasane")?;
        Ok(Self { qemu, kasane, files })
    }

    pub(super) fn measure(&mut self, job: &Job, place: Place, seconds: u64) -> Result<f64> {
        for file in self.files.values() {
            file.settle()?;
        }
        let guest = match place {
            Place::Host => {
                let own = self.files.get(&(place, job.cache)).context("the host has no file")?;
                return own.sequential(job.access, seconds);
            }
            Place::Qemu => &mut self.qemu,
            Place::Kasane => &mut self.kasane,
        };
        let answer = guest.json(&job.command(seconds))?;
        let (path, unit) = job.rate();
        Ok(number_at(&answer, &path)? / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_one_command_and_its_rate_one_number() {
        let job = random(Access::Write, 32);

        let command = job.command(3);

        for word in ["--rw=randwrite ", "--bs=4k ", "--iodepth=32 ", "--runtime=3 "] {
            assert!(command.contains(word), "{word} in {command}");
        }
        assert_eq!(job.rate(), ("/jobs/0/write/iops".to_owned(), 1.0));
        assert_eq!(
            (job.name().as_str(), job.unit()),
            ("random 4 KiB write, depth 32, cached", "IO/s")
        );
    }

    #[test]
    fn every_job_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<String> = JOBS.iter().map(Job::name).collect();

        assert_eq!(names.len(), JOBS.len());
    }
}
