//! Devices on the command line: a file or a folder, and words behind commas.
//!
//! A comma that belongs to the name is written twice, as in QEMU's options.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

use kasane_definition::{DeviceName, DiskSerial, DiskSize};
use kasane_host_disks::DiskFormat;

/// `--disk FILE[,format=raw|qcow2][,ro][,serial=S][,direct][,bps=SIZE][,iops=N]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskArgument {
    pub(crate) file: PathBuf,
    pub(crate) format: Option<DiskFormat>,
    pub(crate) read_only: bool,
    pub(crate) serial: Option<DiskSerial>,
    pub(crate) direct: bool,
    pub(crate) bytes_per_second: Option<NonZeroU64>,
    pub(crate) operations_per_second: Option<NonZeroU64>,
}

/// `--share DIR[:TAG][,ro]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShareArgument {
    pub(crate) directory: PathBuf,
    pub(crate) tag: DeviceName,
    pub(crate) read_only: bool,
}

/// The tag of a folder that is given none.
const DEFAULT_TAG: &str = "share";

/// The name, and the words behind it.
fn parts(text: &str) -> (String, Vec<&str>) {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let Some((before, behind)) = rest.split_once(',') else {
            name.push_str(rest);
            return (name, Vec::new());
        };
        name.push_str(before);
        match behind.strip_prefix(',') {
            Some(behind) => {
                name.push(',');
                rest = behind;
            }
            None => return (name, behind.split(',').collect()),
        }
    }
}

fn read<T: FromStr<Err: std::fmt::Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

fn limit(word: &str, value: &str) -> Result<NonZeroU64, String> {
    let number = value.parse::<NonZeroU64>().ok();
    number.ok_or_else(|| format!("`{word}={value}`: write a number from 1 on"))
}

impl FromStr for DiskArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (file, words) = parts(text);
        if file.is_empty() {
            return Err("name the image's file".to_owned());
        }
        let mut disk = Self { file: file.into(), ..Self::default() };
        for word in words {
            match word.split_once('=') {
                None if word == "ro" => disk.read_only = true,
                None if word == "direct" => disk.direct = true,
                Some(("format", value)) => disk.format = Some(read(value)?),
                Some(("serial", value)) => disk.serial = Some(read(value)?),
                Some(("bps", value)) => {
                    let size: DiskSize = read(value)?;
                    disk.bytes_per_second = NonZeroU64::new(size.bytes());
                }
                Some(("iops", value)) => disk.operations_per_second = Some(limit("iops", value)?),
                None | Some(_) => {
                    return Err(format!(
                        "`{word}` is nothing that a disk has: format=raw, format=qcow2, ro, \
                         serial=S, direct, bps=SIZE or iops=N (a comma in the file's name is \
                         written twice)"
                    ));
                }
            }
        }
        Ok(disk)
    }
}

impl FromStr for ShareArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (place, words) = parts(text);
        let (directory, tag) = match place.rsplit_once(':') {
            Some((directory, tag)) => (directory.to_owned(), tag.to_owned()),
            None => (place, DEFAULT_TAG.to_owned()),
        };
        if directory.is_empty() {
            return Err("name the folder".to_owned());
        }
        let mut share = Self { directory: directory.into(), tag: read(&tag)?, read_only: false };
        for word in words {
            match word {
                "ro" => share.read_only = true,
                _ => {
                    return Err(format!(
                        "`{word}` is nothing that a shared folder has: ro (a comma in its name is \
                         written twice)"
                    ));
                }
            }
        }
        Ok(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_file_with_words() {
        let disk: DiskArgument =
            "a,,b.img,format=qcow2,ro,serial=S1,bps=10M,iops=100".parse().unwrap();

        assert_eq!(disk.file, PathBuf::from("a,b.img"));
        assert_eq!(disk.format, Some(DiskFormat::Qcow2));
        assert!(disk.read_only && !disk.direct);
        assert_eq!(disk.serial.unwrap().to_string(), "S1");
        assert_eq!(disk.bytes_per_second, NonZeroU64::new(10 << 20));
        assert_eq!(disk.operations_per_second, NonZeroU64::new(100));
    }

    #[test]
    fn what_a_disk_does_not_have_is_refused_with_what_it_has() {
        let error = "a.img,readonly".parse::<DiskArgument>().unwrap_err();

        assert!(error.contains("`readonly`") && error.contains("ro"), "{error}");
        for wrong in ["", ",ro", "a,format=vmdk", "a,serial=", "a,iops=0", "a,bps=-1", "a,ro=1"] {
            assert!(wrong.parse::<DiskArgument>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_is_a_folder_with_a_tag() {
        let share: ShareArgument = "/home/me:mine,ro".parse().unwrap();
        let plain: ShareArgument = "data".parse().unwrap();

        assert_eq!((share.directory, share.tag.as_str()), ("/home/me".into(), "mine"));
        assert!(share.read_only);
        assert_eq!((plain.directory, plain.tag.as_str()), ("data".into(), "share"));
        for wrong in ["", ":tag", "a:b c", "a:", "a,rw"] {
            assert!(wrong.parse::<ShareArgument>().is_err(), "{wrong}");
        }
    }
}
