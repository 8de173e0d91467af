//! What packets are wrapped in: tunnels between nodes, options of IPv6, and programs that see packets before all filters.

use crate::lab::{Lab, shipped};

fn python(lab: &Lab, node: &str, script: &str) {
    drop(lab.run(["lab", "exec", node, "--", "python3", "-c", script]).expect(0));
}

/// The least RTT of three echoes, in milliseconds; `None`: none was answered.
fn ping(lab: &Lab, to: &str) -> Option<f64> {
    let said = lab.netemctl(&format!("lab exec n1 -- ping -n -q -c 3 -i 0.3 -W 2 {to}")).stdout;
    let (_, figures) = said.split_once("min/avg/max/mdev = ")?;
    figures.split('/').next()?.parse().ok()
}

#[test]
fn tunnels_between_nodes_are_delayed_and_cut_by_their_outer_header() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    for (kind, network) in
        [("gre", "192.0.2."), ("ipip", "192.0.2."), ("sit", "2001:db8::"), ("vxlan id 7 dstport 4789", "192.0.2.")]
    {
        for (node, other) in [(1, 2), (2, 1)] {
            let name = format!("n{node}");
            let ends = format!("local 10.78.0.{node} remote 10.78.0.{other}");
            drop(lab.exec(&name, &format!("ip link add t0 type {kind} {ends}")));
            drop(lab.exec(&name, "ip link set t0 up"));
            let nodad = if network.contains(':') { " nodad" } else { "" };
            drop(lab.exec(&name, &format!("ip address add {network}{node}/24 dev t0{nodad}")));
        }
        let to = format!("{network}2");
        assert!(ping(&lab, &to).is_some_and(|rtt| rtt >= 100.0), "{kind}: it is delayed");
        drop(lab.netemctl("partition n1").expect(0));
        assert_eq!(ping(&lab, &to), None, "{kind}: it is cut");
        drop(lab.netemctl("heal").expect(0));
        assert!(ping(&lab, &to).is_some_and(|rtt| rtt >= 100.0), "{kind}: it is healed");
        for node in ["n1", "n2"] {
            drop(lab.exec(node, "ip link del t0"));
        }
    }
    // The kernel gives every new namespace a gre0 and the like now. No lab came up any more: it waited for them.
    drop(lab);
    drop(Lab::up(&shipped("uniform-3-rtt100.toml")));
}

/// Linux puts destination options before the fragment header, so that flower sees the protocol of each fragment.
#[test]
fn destination_options_do_not_help_a_datagram_past_a_cut_of_its_port() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    drop(lab.netemctl("partition n1 --port udp/5000").expect(0));
    // IPV6_DSTOPTS with six bytes of padding; one small datagram, and one of three fragments.
    let send = "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
                s.setsockopt(socket.IPPROTO_IPV6, 59, bytes([0, 0, 1, 4, 0, 0, 0, 0]))\n\
                for size in (100, 4000): s.sendto(b'x' * size, ('fd78::2', 5000))\n";
    python(&lab, "n1", send);
    let status = lab.netemctl("--json status").expect(0).json();
    assert_eq!(status["partitions"][0]["cut"], 4, "{status}");
}

/// bpf(2) loads a program that passes everything, and `RTM_SETLINK` attaches it in generic mode.
const ATTACH: &str = r#"
import ctypes, platform, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
program = struct.pack("<BBhi", 0xb7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0)
code, license = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
load = struct.pack("<IIQQ", 6, 2, ctypes.addressof(code), ctypes.addressof(license)).ljust(128, b"\0")
bpf = {"x86_64": 321, "aarch64": 280}[platform.machine()]
fd = libc.syscall(bpf, 5, ctypes.create_string_buffer(load, 128), 128)
assert fd >= 0, ctypes.get_errno()
xdp = struct.pack("<HHiHHI", 8, 1, fd, 8, 3, 2)
message = struct.pack("<BxHiII", 0, 0, socket.if_nametoindex("db0"), 0, 0) + struct.pack("<HH", 4 + len(xdp), 0x8000 | 43) + xdp
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
s.bind((0, 0))
s.send(struct.pack("<IHHII", 16 + len(message), 19, 5, 1, 0) + message)
error = struct.unpack("<i", s.recv(4096)[16:20])[0]
assert error == 0, error
"#;

#[test]
fn an_xdp_program_on_a_nodes_interface_is_warned_of() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let check = || {
        let ran = lab.netemctl("inventory check").expect(0);
        ran.stdout + &ran.stderr
    };
    assert!(!check().contains("XDP"), "{}", check());
    python(&lab, "n1", ATTACH);
    let warned = check();
    assert_eq!(warned.matches("interface db0 has an XDP program").count(), 1, "{warned}");
}
