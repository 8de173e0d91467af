//! The service manager that started the agent, and what it is told (`sd_notify(3)`): that the agent is ready, what is in
//! force, that it is not stuck, that it ends. Without one, nothing is said to anybody.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::Arc,
    time::Duration,
};

use tracing::{info, warn};

/// Of the time after which an agent is taken for stuck that has said nothing, the part after which it says something.
const SHARE: u32 = 3;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// After what time it takes the agent for stuck, if it ever does.
    patience: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub(super) fn of_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let socket = connect(address.as_bytes());
        if let Err(error) = &socket {
            warn!(%error, "The service manager at {} cannot be told anything.", address.display());
        }
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        // Meant for another process, if it names one.
        let is_ours = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(process::id()));
        let patience = number("WATCHDOG_USEC").filter(|patience| is_ours && *patience > 0).map(Duration::from_micros);
        Self { socket: socket.ok(), patience }
    }

    #[cfg(test)]
    pub(super) fn at(socket: UnixDatagram, patience: Duration) -> Self {
        Self { socket: Some(socket), patience: Some(patience) }
    }

    /// The agent serves, and `in_force` is.
    pub(super) fn ready(&self, in_force: &str) {
        self.tell(&format!("READY=1\nSTATUS={in_force}"));
        if let Some(patience) = self.patience {
            info!("The service manager starts this agent again if it is stuck for {} s.", patience.as_secs_f64());
        }
    }

    /// The agent ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=ending; what is in force stays in the kernel");
    }

    fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(what.as_bytes())
        {
            // It will hear the next one, or find the agent stuck.
            warn!(%error, "The service manager could not be told {what:?}.");
        }
    }
}

/// Connects to a path, or to an abstract address, which begins with `@`.
fn connect(address: &[u8]) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A service manager that does not read must not be able to hold the agent up.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Tells the service manager, now and then, that the agent does its work.
pub(super) struct Heartbeat {
    service_manager: Arc<ServiceManager>,
    /// The uptime at which it was told so last.
    last: Option<Duration>,
    /// What it was told to be in force.
    in_force: String,
}

impl Heartbeat {
    /// Begins with what [`ServiceManager::ready`] was told.
    pub(super) fn new(service_manager: Arc<ServiceManager>, in_force: String) -> Self {
        Self { service_manager, last: None, in_force }
    }

    /// What is in force, as it was told.
    pub(super) fn in_force(&self) -> &str {
        &self.in_force
    }

    /// The uptime at which it is to be told so again, if it ever asks.
    pub(super) fn due(&self) -> Option<Duration> {
        Some(self.last? + self.service_manager.patience? / SHARE)
    }

    /// To be called by who has just had the node, at an uptime: whoever cannot have it is stuck.
    pub(super) fn beat(&mut self, in_force: String, uptime: Duration) {
        if in_force != self.in_force {
            self.service_manager.tell(&format!("STATUS={in_force}"));
            self.in_force = in_force;
        }
        let Some(patience) = self.service_manager.patience else { return };
        if self.last.is_none_or(|last| uptime.saturating_sub(last) >= patience / SHARE) {
            self.service_manager.tell("WATCHDOG=1");
            self.last = Some(uptime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut datagram = [0; 1024];
        socket.set_nonblocking(true).unwrap();
        socket
            .recv(&mut datagram)
            .map(|size| String::from_utf8_lossy(&datagram[..size]).into_owned())
            .unwrap_or_default()
    }

    #[test]
    fn a_path_and_an_abstract_name_are_both_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        connect(path.as_os_str().as_bytes()).unwrap().send(b"by path").unwrap();
        assert_eq!(heard(&by_path), "by path");

        let name = format!("netemctl-test-{}", process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        connect(format!("@{name}").as_bytes()).unwrap().send(b"by name").unwrap();
        assert_eq!(heard(&by_name), "by name");
        assert!(connect(b"@").is_err() || connect(b"/no/such/socket").is_err());
    }

    #[test]
    fn the_pulse_beats_three_times_in_the_patience_and_says_what_is_new() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let service_manager = Arc::new(ServiceManager::at(theirs, Duration::from_secs(30)));
        let mut pulse = Heartbeat::new(service_manager, "nothing".to_owned());
        let mut beats = 0;
        for tenth in 0..600 {
            pulse.beat("nothing".to_owned(), Duration::from_millis(100 * tenth));
            let told = heard(&ours);
            assert!(["", "WATCHDOG=1"].contains(&told.as_str()), "{told}");
            beats += usize::from(!told.is_empty());
        }
        assert_eq!(beats, 6, "in 60 s");
        pulse.beat("generation 1".to_owned(), Duration::from_secs(61));
        assert_eq!(heard(&ours), "STATUS=generation 1");
        assert_eq!(heard(&ours), "WATCHDOG=1");
        pulse.beat("generation 1".to_owned(), Duration::from_secs(62));
        assert_eq!(heard(&ours), "");
    }

    #[test]
    fn an_agent_that_nobody_supervises_says_nothing() {
        let mut pulse = Heartbeat::new(Arc::new(ServiceManager::default()), String::new());
        pulse.beat("generation 1".to_owned(), Duration::from_secs(1));
        assert_eq!(pulse.last, None);
    }
}
