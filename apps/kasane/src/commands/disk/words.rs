//! What `kasane disk info` and `check` print.

use std::path::Path;

use kasane_host_disks::tools::{CheckReport, ImageInfo};
use serde_json::{Value, json};

pub(super) fn info(path: &Path, info: &ImageInfo) -> String {
    let mut text = format!("{}\n", path.display());
    text += &line("format", info.format.as_str());
    text += &line("size", &size(info.size));
    text += &line("stored", &size(info.stored));
    if let Some(cluster) = info.cluster {
        text += &line("cluster", &size(cluster));
    }
    if let Some(backing) = &info.backing {
        let format = backing.format.map_or(String::new(), |format| format!(" ({format})"));
        text += &line("backing file", &format!("{}{format}", backing.path.display()));
    }
    if info.snapshots > 0 {
        text += &line("snapshots", &info.snapshots.to_string());
    }
    if info.dirty {
        text += &line("state", "not closed; `qemu-img check -r all` repairs it");
    }
    text
}

pub(super) fn info_json(path: &Path, info: &ImageInfo) -> Value {
    let backing = info.backing.as_ref().map(|backing| {
        json!({
            "path": backing.path,
            "format": backing.format.map(kasane_host_disks::DiskFormat::as_str),
        })
    });
    json!({
        "path": path,
        "format": info.format.as_str(),
        "size_bytes": info.size,
        "stored_bytes": info.stored,
        "cluster_bytes": info.cluster,
        "snapshots": info.snapshots,
        "dirty": info.dirty,
        "backing": backing,
    })
}

pub(super) fn check(path: &Path, report: &CheckReport) -> String {
    let state = if report.is_sound() { "sound" } else { "damaged" };
    let mut text = format!("{}\n{}", path.display(), line("state", state));
    if report.errors > 0 {
        text += &line("errors", &report.errors.to_string());
        report.messages.iter().for_each(|message| text += &line("", message));
    }
    if report.cluster_bytes > 0 {
        let data = report.data_clusters.saturating_mul(report.cluster_bytes);
        text += &line("data", &size(data));
    }
    if report.leaked_clusters > 0 {
        let lost = size(report.leaked_clusters.saturating_mul(report.cluster_bytes));
        text += &line("lost space", &format!("{lost}; no danger, `qemu-img check -r leaks`"));
    }
    text
}

pub(super) fn check_json(path: &Path, report: &CheckReport) -> Value {
    json!({
        "path": path,
        "sound": report.is_sound(),
        "errors": report.errors,
        "messages": report.messages,
        "leaked_clusters": report.leaked_clusters,
        "data_clusters": report.data_clusters,
        "compressed_clusters": report.compressed_clusters,
        "cluster_bytes": report.cluster_bytes,
    })
}

fn line(name: &str, value: &str) -> String {
    format!("  {name:<14}{value}\n")
}

/// In the largest unit that has no more than two decimals to it, with the bytes behind.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0);
    let Some((name, shift)) = unit else { return format!("{bytes} bytes") };
    let whole = bytes >> shift;
    let hundredths = ((bytes - (whole << shift)) * 100) >> shift;
    let decimals = match hundredths {
        0 => String::new(),
        n => format!(".{n:02}").trim_end_matches('0').to_owned(),
    };
    format!("{whole}{decimals} {name} ({bytes} bytes)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_the_exact_number() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(512), "512 bytes");
        assert_eq!(size(8 << 30), "8 GiB (8589934592 bytes)");
        assert_eq!(size(1536 << 10), "1.5 MiB (1572864 bytes)");
        assert_eq!(size(u64::MAX), "16777215.99 TiB (18446744073709551615 bytes)");
    }
}
