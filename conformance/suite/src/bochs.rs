//! The bare-metal hypervisor in Bochs, which has VT-x and QEMU's TCG hasn't: from a CD with its
//! machines, with the serial port on a socket.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::hypervisor::{PcMachine, image};

const FIRMWARE: [&str; 2] =
    ["/usr/share/bochs/BIOS-bochs-latest", "/usr/share/bochs/VGABIOS-lgpl-latest"];
/// So long it may take to connect its serial port.
const CONNECTS_IN: Duration = Duration::from_secs(60);

/// Starts Bochs with the machine's CD; gives its process and its serial port.
///
/// # Errors
/// A sentence, if something is missing or it doesn't start.
pub(crate) fn start(machine: &PcMachine<'_>, folder: &Path) -> Result<(Child, TcpStream), String> {
    for file in FIRMWARE {
        if !Path::new(file).is_file() {
            return Err(format!("{file} is not there: packages bochsbios and vgabios"));
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("no port: {e}"))?;
    let port = listener.local_addr().map_err(|e| format!("no port: {e}"))?.port();
    let cd = cd(machine, folder)?;
    let text = configuration(machine, &cd, folder, port);
    let (settings, commands) = (folder.join("bochsrc"), folder.join("commands"));
    fs::write(&settings, text).map_err(|e| format!("no settings: {e}"))?;
    // Debian's has its debugger in and waits for a command.
    fs::write(&commands, "c\n").map_err(|e| format!("no commands: {e}"))?;
    let line = format!("exec bochs-bin -q -rc {} -f {}", commands.display(), settings.display());
    let mut child = Command::new("script")
        // It draws on a terminal.
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("script did not start: {e}"))?;
    match connection(&listener, &mut child) {
        Ok(serial) => Ok((child, serial)),
        Err(why) => {
            let _ended_already = child.kill();
            let _waited_already = child.wait();
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            Err(format!("{why} (packages bochs and bochs-term):\n{log}"))
        }
    }
}

fn connection(listener: &TcpListener, child: &mut Child) -> Result<TcpStream, String> {
    listener.set_nonblocking(true).map_err(|e| format!("no port: {e}"))?;
    let start = Instant::now();
    while start.elapsed() < CONNECTS_IN {
        if let Ok((serial, _)) = listener.accept() {
            serial.set_nonblocking(false).map_err(|e| format!("no port: {e}"))?;
            return Ok(serial);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("Bochs ended with {status}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("Bochs did not connect its serial port".to_owned())
}

fn configuration(machine: &PcMachine<'_>, cd: &Path, folder: &Path, port: u16) -> String {
    let [bios, video] = FIRMWARE;
    let PcMachine { cpus, memory_mib, processor, .. } = machine;
    format!(
        "plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1\n\
         config_interface: textconfig\ndisplay_library: term\n\
         romimage: file={bios}\nvgaromimage: file={video}\n\
         cpu: model={processor}, count={cpus}, ips=200000000, reset_on_triple_fault=0\n\
         memory: guest={memory_mib}, host={memory_mib}\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=cdrom, path={}, status=inserted\nboot: cdrom\n\
         clock: sync=none, time0=local\n\
         com1: enabled=1, mode=socket-client, dev=127.0.0.1:{port}\n\
         log: {}\npanic: action=fatal\nerror: action=report\ninfo: action=ignore\n",
        cd.display(),
        folder.join("log").display(),
    )
}

/// A CD with the hypervisor and the machine's definitions and files.
fn cd(machine: &PcMachine<'_>, folder: &Path) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("no CD: {error}");
    let tree = folder.join("cd");
    fs::create_dir_all(tree.join("boot/grub")).map_err(failed)?;
    fs::copy(image("kasane.elf")?, tree.join("boot/kasane.elf")).map_err(failed)?;
    let mut menu = "set timeout=0\nmenuentry Kasane {\n  multiboot2 /boot/kasane.elf\n".to_owned();
    let mut module = |name: &str| menu.push_str(&format!("  module2 /boot/{name} {name}\n"));
    for (name, text) in machine.definitions {
        fs::write(tree.join("boot").join(name), text).map_err(failed)?;
        module(name);
    }
    for (name, path) in machine.files {
        fs::copy(path, tree.join("boot").join(name)).map_err(failed)?;
        module(name);
    }
    menu.push_str("  boot\n}\n");
    fs::write(tree.join("boot/grub/grub.cfg"), menu).map_err(failed)?;
    let cd = folder.join("kasane.iso");
    let made = Command::new("grub-mkrescue")
        .args(["-d", "/usr/lib/grub/i386-pc", "-o"])
        .args([&cd, &tree])
        .output()
        .map_err(|e| format!("grub-mkrescue did not start: {e}"))?;
    if made.status.success() {
        return Ok(cd);
    }
    Err(format!("no CD: {}", String::from_utf8_lossy(&made.stderr)))
}
