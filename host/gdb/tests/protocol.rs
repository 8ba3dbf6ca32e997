//! The stub over a real interpreter, asked packet by packet.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use support::client::{Client, hex, number, text};
use support::debugged;
use support::guest::{CODE, COUNTER, LOAD, LOOP, STORE};

/// Numbers of registers in the description.
const RAX: &str = "0";
const RIP: &str = "10";

fn rip(client: &mut Client) -> u64 {
    number(&client.ask(&format!("p{RIP}")))
}

/// Waits until something is so.
fn until(mut what: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while !what() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    what()
}

#[test]
fn registers_are_read_and_written() {
    let (_guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.ask("Hg1");

    let before = rip(&mut client);
    let written = client.ask(&format!("P{RAX}=8877665544332211"));

    assert_eq!(before, CODE);
    assert_eq!(written, "OK");
    assert_eq!(client.ask(&format!("p{RAX}")), "8877665544332211");
    assert_eq!(&client.ask("g")[..16], "8877665544332211");
}

#[test]
fn a_whole_register_packet_changes_what_differs_in_it() {
    let (_guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.ask("Hg1");
    let before = client.ask("g");

    let after = format!("0102030405060708{}", &before[16..]);
    let written = client.ask(&format!("G{after}"));

    assert_eq!(written, "OK");
    assert_eq!(client.ask("g"), after);
}

#[test]
fn memory_is_seen_through_the_page_tables() {
    let (guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.ask("Hg1");

    let code = client.ask(&format!("m{CODE:x},5"));
    let nothing = client.ask("m1000,4");
    let cut = client.ask(&format!("m{:x},8", 0xFFFF_FFFF_801F_FFFCu64));
    let written = client.ask(&format!("M{COUNTER:x},4:78563412"));
    let refused = client.ask("M1000,1:00");

    assert_eq!(code, "b801000000");
    assert_eq!(nothing, "E0e");
    assert_eq!(cut, "00000000");
    assert_eq!(written, "OK");
    assert_eq!(guest.counter(), 0x1234_5678);
    assert_eq!(refused, "E0e");
}

#[test]
fn a_step_is_one_instruction() {
    let (_guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.ask("Hg1");

    let stopped = client.ask("vCont;s:1");

    assert_eq!(stopped, "T05thread:01;");
    assert_eq!(rip(&mut client), LOOP);
    assert_eq!(client.ask(&format!("p{RAX}")), "0100000000000000");
}

#[test]
fn a_breakpoint_stops_before_its_instruction_and_changes_no_memory() {
    let (_guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.ask("Hg1");

    let inserted = client.ask(&format!("Z0,{STORE:x},1"));
    let stopped = client.ask("vCont;c");
    let byte = client.ask(&format!("m{STORE:x},1"));

    assert_eq!(inserted, "OK");
    assert_eq!(stopped, "T05thread:01;swbreak:;");
    assert_eq!(rip(&mut client), STORE);
    assert_eq!(number(&client.ask(&format!("p{RAX}"))), 3);
    assert_eq!(byte, "89");
}

#[test]
fn past_a_breakpoint_the_way_gdb_goes() {
    let (_guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.ask("Hg1");
    client.ask(&format!("Z0,{STORE:x},1"));
    client.ask("vCont;c");

    client.ask(&format!("z0,{STORE:x},1"));
    let stepped = client.ask("vCont;s:1");
    client.ask(&format!("Z0,{STORE:x},1"));
    let again = client.ask("vCont;c");

    assert_eq!(stepped, "T05thread:01;");
    assert_eq!(again, "T05thread:01;swbreak:;");
    assert_eq!(number(&client.ask(&format!("p{RAX}"))), 5);
}

#[test]
fn a_hardware_breakpoint_is_told_as_such() {
    let (_guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);

    client.ask(&format!("Z1,{LOAD:x},1"));
    let stopped = client.ask("vCont;c");

    assert_eq!(stopped, "T05thread:01;hwbreak:;");
}

#[test]
fn watchpoints_tell_reads_from_writes() {
    let (_guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.ask("Hg1");

    client.ask(&format!("Z2,{COUNTER:x},4"));
    let written = client.ask("vCont;c");
    let after_store = rip(&mut client);
    client.ask(&format!("z2,{COUNTER:x},4"));
    client.ask(&format!("Z3,{COUNTER:x},4"));
    let read = client.ask("vCont;c");

    assert_eq!(written, format!("T05thread:01;watch:{COUNTER:x};"));
    assert_eq!(after_store, LOAD);
    assert_eq!(read, format!("T05thread:01;rwatch:{COUNTER:x};"));
    assert_eq!(rip(&mut client), LOAD + 6);
}

#[test]
fn the_second_watchpoint_is_told_by_its_own_address() {
    let (_guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);

    client.ask(&format!("Z2,{:x},8", COUNTER + 64));
    client.ask(&format!("Z4,{COUNTER:x},1"));
    let stopped = client.ask("vCont;c");

    assert_eq!(stopped, format!("T05thread:01;awatch:{COUNTER:x};"));
}

#[test]
fn ctrl_c_stops_a_running_guest() {
    let (guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.send("vCont;c");
    assert!(until(|| guest.counter() > 1000));

    client.raw(&[3]);
    let stopped = client.answer();

    assert_eq!(stopped, "T02thread:01;");
    assert!(!guest.runs());
}

#[test]
fn each_vcpu_is_a_thread_and_a_locked_step_moves_only_one() {
    let (_guest, _server, path) = debugged(2);
    let mut client = Client::connect(&path);

    let threads = client.ask("qfThreadInfo");
    let extra = text(&client.ask("qThreadExtraInfo,2"));
    let stopped = client.ask("vCont;s:2");
    client.ask("Hg1");
    let first = rip(&mut client);
    client.ask("Hg2");
    let second = rip(&mut client);

    assert_eq!(threads, "m01,02");
    assert_eq!(extra, "vCPU 1: runs, 64-bit code");
    assert_eq!(stopped, "T05thread:02;");
    assert_eq!((first, second), (CODE, LOOP));
}

#[test]
fn two_vcpus_at_one_breakpoint_both_stop_there() {
    let (_guest, _server, path) = debugged(2);
    let mut client = Client::connect(&path);
    client.ask(&format!("Z0,{CODE:x},1"));

    // Past the breakpoint with the one that stopped, as GDB goes; then the other must stop.
    let first = client.ask("vCont;c");
    let thread = &first[10..12];
    client.ask(&format!("z0,{CODE:x},1"));
    client.ask(&format!("vCont;s:{thread}"));
    client.ask(&format!("Z0,{CODE:x},1"));
    let second = client.ask("vCont;c");

    let other = if thread == "01" { "02" } else { "01" };
    assert_eq!(second, format!("T05thread:{other};swbreak:;"));
}

#[test]
fn detach_lets_the_guest_go_on_without_breakpoints() {
    let (guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.ask(&format!("Z0,{LOAD:x},1"));
    client.ask("vCont;c");

    let gone = client.ask("D");

    assert_eq!(gone, "OK");
    assert!(client.is_closed());
    assert!(until(|| guest.counter() > 1000));
}

#[test]
fn a_lost_connection_leaves_a_stopped_guest_stopped_and_another_debugger_may_come() {
    let (guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.ask(&format!("Z0,{LOAD:x},1"));
    client.ask("vCont;c");

    drop(client);
    let mut next = Client::connect(&path);
    next.ask("Hg1");

    assert_eq!(rip(&mut next), LOAD);
    assert!(!guest.runs());
    next.send("vCont;c"); // its breakpoint went with the first debugger
    assert!(until(|| guest.counter() > 1000));
}

#[test]
fn garbage_ends_the_session_and_not_the_guest() {
    let (guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);

    client.raw(b"$G\xFF\xFF#00$$$###");
    drop(client);
    let mut next = Client::connect(&path);
    next.ask("Hg1");

    assert_eq!(rip(&mut next), CODE);
    assert!(!guest.runs());
}

#[test]
fn kill_ends_the_machine() {
    let (_guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);

    client.raw(b"$k#6b");

    assert!(until(|| client.is_closed_after_ack()));
}

#[test]
fn monitor_commands_answer_in_text() {
    let (guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    let mut monitor = |command: &str| {
        let answer = client.ask(&format!("qRcmd,{}", hex(command)));
        let end = client.answer();
        (text(&answer[1..]), end)
    };

    let (help, end) = monitor("help");
    let (info, _) = monitor("info");
    let (reset, _) = monitor("reset");
    let (unknown, _) = monitor("nonsense");

    assert_eq!(end, "OK");
    assert!(help.starts_with("help "), "{help}");
    assert!(info.contains("vCPU 0: runs, 64-bit code, CPL 0"), "{info}");
    assert!(reset.contains("is reset"), "{reset}");
    assert_eq!(guest.resets(), 1);
    assert!(unknown.contains("no command `nonsense`"), "{unknown}");
}

#[test]
fn breakpoints_survive_a_reset() {
    let (_guest, _server, path) = debugged(1);
    let mut client = Client::connect(&path);
    client.ask("Hg1");
    client.ask(&format!("Z0,{LOAD:x},1"));
    client.ask("vCont;c");

    client.ask(&format!("qRcmd,{}", hex("reset")));
    client.answer();
    let at_start = rip(&mut client);
    let stopped = client.ask("vCont;c");

    assert_eq!(at_start, CODE);
    assert_eq!(stopped, "T05thread:01;swbreak:;");
    assert_eq!(rip(&mut client), LOAD);
}

#[test]
fn the_socket_file_goes_with_the_server() {
    let (_guest, server, path) = debugged(1);
    let was = path.exists();

    drop(server);

    assert_eq!((was, path.exists()), (true, false));
}
