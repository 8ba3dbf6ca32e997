//! A file system to boot to a shell: busybox and what its init needs.

use crate::Archive;

/// Rows and columns of the terminal that shows the guest's console; a serial line can't tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// An initramfs that boots to busybox's shell on the serial console.
#[derive(Clone, Debug)]
pub struct Initramfs<'a> {
    /// The statically linked busybox.
    pub busybox: &'a [u8],
    /// The guest's name.
    pub hostname: &'a str,
    /// Size of the terminal, if one shows the console.
    pub terminal: Option<TerminalSize>,
}

/// The prompt of the guest of this name.
#[must_use]
pub fn prompt(hostname: &str) -> String {
    format!("{hostname}# ")
}

/// What busybox's init does: once the set-up, then a shell on the console, again and again.
const INITTAB: &str = "\
::sysinit:/etc/setup
ttyS0::respawn:-/bin/sh
::ctrlaltdel:/bin/reboot
";

/// For a person: what this is and what to try. From then on the kernel says only what is wrong.
const WELCOME: &str = "\
dmesg -n 4
cat <<END

\u{1B}[1m$(uname -sr)\u{1B}[0m in the virtual machine \u{1B}[1m$(hostname)\u{1B}[0m, booted from
Debian's own kernel. Try: cat /proc/cpuinfo, top, vi note, poweroff
END
";

impl Initramfs<'_> {
    /// The archive's bytes, not compressed: the kernel takes it so, and it is made once.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut archive = Archive::new();
        for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
            archive.directory(folder);
        }
        archive.device("dev/console", (5, 1));
        archive.device("dev/null", (1, 3));
        archive.executable("bin/busybox", self.busybox);
        archive.link("bin/sh", "busybox");
        archive.link("init", "bin/busybox");
        archive.file("etc/inittab", INITTAB.as_bytes());
        archive.executable("etc/setup", self.setup().as_bytes());
        archive.file("etc/profile", self.profile().as_bytes());
        archive.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n");
        archive.finish()
    }

    fn setup(&self) -> String {
        format!(
            "#!/bin/busybox sh\n\
             /bin/busybox --install -s /bin\n\
             mount -t proc proc /proc\n\
             mount -t sysfs sys /sys\n\
             mount -t devtmpfs dev /dev\n\
             mount -t tmpfs tmp /tmp\n\
             hostname {}\n{}",
            self.hostname,
            self.terminal.map_or("", |_| WELCOME)
        )
    }

    fn profile(&self) -> String {
        let size = self.terminal.map_or_else(String::new, |TerminalSize { rows, columns }| {
            format!("stty rows {rows} columns {columns}\n")
        });
        format!(
            "export PATH=/bin HOME=/root TERM=vt100\n\
             export PS1='{}'\n\
             cd /root\n{size}",
            prompt(self.hostname)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_an_init_a_shell_and_a_console() {
        let initramfs = Initramfs {
            busybox: b"the program",
            hostname: "left",
            terminal: Some(TerminalSize { rows: 24, columns: 80 }),
        };
        let text = String::from_utf8(initramfs.build()).unwrap();

        assert!(text.contains("the program"));
        assert!(text.contains("init\0"));
        assert!(text.contains("dev/console\0"));
        assert!(text.contains("hostname left\ndmesg"));
        assert!(text.contains("stty rows 24 columns 80\n"));
    }
}
