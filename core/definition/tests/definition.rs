//! The definition's file form: what is read, what is written, what is refused and in which words.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // tests may panic

use kasane_definition::{Board, CpuModel, Engine, GuestCid, PciSlot, Serial, VmDefinition};

const WHOLE: &str = r#"name = "debian"
board = "pc"
memory = "2G"
cpus = 4
cpu = "x86-64-v3"

[boot]
kernel = "vmlinuz"
initrd = "initrd.img"
append = "console=ttyS0 quiet"

[devices]
transport = "pci"
rng = true
balloon = false
vsock = 5
console = true

[[devices.disk]]
name = "vda"
slot = 3
serial = "D1"
read_only = false

[[devices.net]]
name = "net0"
slot = 4
mac = "52:54:00:12:34:56"

[[devices.share]]
tag = "work"
slot = 5
read_only = true

[home.hosted]
engine = "interp"
serial = "file:console.log"
display = "none"
console = "none"
vsock = "guest.sock"

[home.hosted.disk.vda]
file = "debian.qcow2"
format = "qcow2"
direct = false
bytes_per_second = 1048576
operations_per_second = 100

[home.hosted.net.net0]
to = "nat"
forward = ["tcp:127.0.0.1:2222:22"]
capture = "net0.pcap"

[home.hosted.share.work]
directory = "work"
"#;

fn refused(text: &str) -> (String, Option<String>) {
    let error = VmDefinition::parse(text).unwrap_err();
    (error.to_string(), error.help)
}

#[test]
fn every_key_is_read() {
    let vm = VmDefinition::parse(WHOLE).unwrap();

    assert_eq!(vm.name.as_str(), "debian");
    assert_eq!(vm.board, Board::Pc);
    assert_eq!(vm.memory.bytes(), 2 << 30);
    assert_eq!(vm.cpus.get(), 4);
    assert_eq!(vm.cpu, CpuModel::V3);
    assert_eq!(vm.boot.kernel.as_deref(), Some("vmlinuz"));
    assert_eq!(vm.boot.initrd.as_deref(), Some("initrd.img"));
    assert_eq!(vm.boot.append, "console=ttyS0 quiet");
    assert_eq!(vm.home.hosted.engine, Engine::Interp);
    assert_eq!(vm.home.hosted.serial, Serial::File("console.log".to_owned()));
    let [disk] = &vm.devices.disk[..] else { panic!("{:?}", vm.devices) };
    assert_eq!(disk.slot.map(PciSlot::get), Some(3));
    assert_eq!(vm.devices.vsock.map(GuestCid::get), Some(5));
    assert_eq!([vm.devices.rng, vm.devices.balloon, vm.devices.console], [true, false, true]);
    assert_eq!(vm.home.hosted.disk["vda"].file, "debian.qcow2");
    assert_eq!(vm.home.hosted.net["net0"].forward.len(), 1);
    assert_eq!(vm.home.hosted.share["work"].directory, "work");
}

#[test]
fn what_is_not_said_has_a_default() {
    let vm = VmDefinition::parse("").unwrap();

    assert_eq!(vm, VmDefinition::default());
    assert_eq!(vm.name.as_str(), "vm");
    assert_eq!(vm.memory.bytes(), 512 << 20);
    assert_eq!(vm.cpus.get(), 1);
    assert_eq!(vm.cpu, CpuModel::Max);
    assert_eq!(vm.home.hosted.serial, Serial::Stdio);
    assert_eq!([vm.devices.rng, vm.devices.balloon, vm.devices.console], [true, true, false]);
    assert_eq!((vm.devices.disk.len(), vm.devices.net.len()), (0, 1));
}

#[test]
fn an_empty_list_of_cards_is_no_card() {
    let vm = VmDefinition::parse("[devices]\nnet = []\n").unwrap();

    assert_eq!(vm.devices.net.len(), 0);
    assert!(VmDefinition::parse(&vm.to_toml().unwrap()).unwrap().devices.net.is_empty());
}

#[test]
fn devices_out_of_range_say_the_range() {
    let slot = refused("[[devices.disk]]\nslot = 1\n").0;
    let mac = refused("[[devices.net]]\nmac = \"1:2\"\n").0;

    assert!(slot.contains("`1` is no free slot of the PCI bus: 2 to 31"), "{slot}");
    assert!(mac.contains("`1:2` is no Ethernet address"), "{mac}");
}

#[test]
fn a_whole_definition_is_written_as_it_was_read() {
    let vm = VmDefinition::parse(WHOLE).unwrap();

    assert_eq!(vm.to_toml().unwrap(), WHOLE);
}

#[test]
fn a_default_definition_goes_round() {
    let written = VmDefinition::default().to_toml().unwrap();

    assert_eq!(VmDefinition::parse(&written).unwrap(), VmDefinition::default());
}

#[test]
fn a_misspelt_key_gets_its_place_and_a_hint() {
    let (message, help) = refused("name = \"a\"\nmemroy = \"1G\"\n");

    assert_eq!(message, "line 2, column 1: unknown key `memroy`");
    assert_eq!(help.as_deref(), Some("did you mean `memory`?"));
}

#[test]
fn a_misspelt_key_in_a_table_gets_a_hint() {
    let (message, help) = refused("[boot]\n  kernal = \"vmlinuz\"\n");

    assert_eq!(message, "line 2, column 3: unknown key `kernal`");
    assert_eq!(help.as_deref(), Some("did you mean `kernel`?"));
}

#[test]
fn a_foreign_key_gets_the_list() {
    let (message, help) = refused("[boot]\nfirmware = \"bios\"\n");

    assert_eq!(message, "line 2, column 1: unknown key `firmware`");
    assert_eq!(help.as_deref(), Some("what can stand here: `kernel`, `initrd`, `append`"));
}

#[test]
fn a_key_that_a_home_lacks_is_refused() {
    let (message, help) = refused("[home.metal]\nspeed = \"high\"\n");

    assert_eq!(message, "line 2, column 1: unknown key `speed`");
    assert_eq!(help.as_deref(), Some("what can stand here: `start`, `engine`, `weight`"));
}

#[test]
fn an_unknown_value_gets_a_hint() {
    let (message, help) = refused("cpu = \"x86-64-v4\"\n");

    assert_eq!(message, "line 1, column 7: unknown value `x86-64-v4`");
    assert_eq!(help.as_deref(), Some("did you mean `x86-64-v2`?"));
}

#[test]
fn values_out_of_range_say_the_range() {
    assert_eq!(refused("cpus = 0").0, "line 1, column 8: 0 cpus are out of range: 1 to 8");
    assert_eq!(refused("cpus = 9").0, "line 1, column 8: 9 cpus are out of range: 1 to 8");
    assert_eq!(
        refused("memory = \"8M\"").0,
        "line 1, column 10: `8M` of memory is out of range: 16M to 16G"
    );
}

#[test]
fn a_wrong_type_says_both_types() {
    assert_eq!(
        refused("memory = 512").0,
        "line 1, column 10: invalid type: integer `512`, expected a string"
    );
}

#[test]
fn a_wrong_name_is_refused() {
    assert_eq!(
        refused("name = \"../up\"").0,
        "line 1, column 8: `../up` is no name: 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or a digit"
    );
}

#[test]
fn a_wrong_serial_port_is_refused() {
    assert_eq!(
        refused("[home.hosted]\nserial = \"file:\"").0,
        "line 2, column 10: `file:` is no serial port: write `stdio`, `none` or `file:PATH`"
    );
}

#[test]
fn broken_toml_has_its_place() {
    let (message, _) = refused("name = \"a\nboard = \"pc\"\n");

    assert!(message.starts_with("line 1, column "), "{message}");
}

#[test]
fn a_key_given_twice_is_refused() {
    assert_eq!(refused("cpus = 1\ncpus = 2\n").0, "line 2, column 1: duplicate key");
}

#[test]
fn the_schema_knows_every_key_and_no_other() {
    let schema = serde_json::to_value(VmDefinition::schema()).unwrap();

    let mut keys: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["board", "boot", "cpu", "cpus", "devices", "home", "memory", "name"]);
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["$defs"]["CpuCount"]["maximum"], 8);
}
