//! Tunnels between nodes, IPv6 destination options, and XDP programs, which see packets before all filters.

use crate::lab::{Lab, shipped};

fn python(lab: &Lab, node: &str, script: &str) {
    drop(lab.run(["lab", "exec", node, "--", "python3", "-c", script]).expect(0));
}

/// The least RTT of three echo requests, in milliseconds; `None`: no reply.
fn ping(lab: &Lab, to: &str) -> Option<f64> {
    let output = lab.netemctl(&format!("lab exec n1 -- ping -n -q -c 3 -i 0.3 -W 2 {to}")).stdout;
    let (_, figures) = output.split_once("min/avg/max/mdev = ")?;
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
        assert!(ping(&lab, &to).is_some_and(|rtt| rtt >= 100.0), "{kind}: packets are not delayed");
        drop(lab.netemctl("partition n1").expect(0));
        assert_eq!(ping(&lab, &to), None, "{kind}: packets are not cut");
        drop(lab.netemctl("heal").expect(0));
        assert!(
            ping(&lab, &to).is_some_and(|rtt| rtt >= 100.0),
            "{kind}: packets do not pass, or are not delayed, after heal"
        );
        for node in ["n1", "n2"] {
            drop(lab.exec(node, "ip link del t0"));
        }
    }
    // Once these modules are loaded, every new namespace has a gre0, a tunl0 and a sit0. Regression: no lab came
    // up, because `lab up` waited for these interfaces too.
    drop(lab);
    drop(Lab::up(&shipped("uniform-3-rtt100.toml")));
}

/// Linux puts destination options before the fragment header, so that flower sees the protocol of each fragment.
#[test]
fn datagrams_with_destination_options_are_cut_by_port() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    drop(lab.netemctl("partition n1 --port udp/5000").expect(0));
    // Two datagrams with IPV6_DSTOPTS (six bytes of padding): a small one, and one of three fragments.
    let send = "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
                s.setsockopt(socket.IPPROTO_IPV6, 59, bytes([0, 0, 1, 4, 0, 0, 0, 0]))\n\
                for size in (100, 4000): s.sendto(b'x' * size, ('fd78::2', 5000))\n";
    python(&lab, "n1", send);
    let status = lab.netemctl("--json status").expect(0).json();
    assert_eq!(status["partitions"][0]["cut"], 4, "{status}");
}

/// Loads an XDP program that passes all packets by bpf(2), and attaches it in generic mode by `RTM_SETLINK`.
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
fn an_xdp_program_on_a_nodes_interface_causes_a_warning() {
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
