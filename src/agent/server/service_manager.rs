//! Notifies the service manager (`sd_notify(3)`): ready, status, watchdog, stopping.
//!
//! Without `NOTIFY_SOCKET` the agent sends no notification.
//!
//! The agent does not use the crate `sd-notify`, because the socket of that crate blocks. A service manager that does
//! not read would block the agent.

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

/// Number of watchdog messages that the agent sends per watchdog timeout.
const BEATS: u32 = 3;

/// The service manager that started the agent, if there is one.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// The watchdog timeout: without a message for this time, the service manager restarts the agent.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads `NOTIFY_SOCKET` and the watchdog timeout from the environment.
    pub(super) fn of_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let socket = connect(address.as_bytes());
        if let Err(error) = &socket {
            warn!(%error, "Cannot connect to the service manager at {}.", address.display());
        }
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        // The watchdog variables may be meant for a parent process.
        let is_ours = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|watchdog| is_ours && *watchdog > 0).map(Duration::from_micros);
        Self { socket: socket.ok(), watchdog }
    }

    /// Reports that the agent is ready, with a status.
    pub(super) fn ready(&self, in_force: &str) {
        self.tell(&format!("READY=1\nSTATUS={in_force}"));
        if let Some(watchdog) = self.watchdog {
            info!("The service manager restarts this agent if it is stuck for {} s.", watchdog.as_secs_f64());
        }
    }

    /// Reports that the agent ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping; the state in the kernel stays");
    }

    fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(what.as_bytes())
        {
            warn!(%error, "Cannot send {what:?} to the service manager.");
        }
    }
}

/// Connects to a path, or to an abstract address that begins with `@`.
fn connect(address: &[u8]) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A service manager that does not read must not block the agent.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Sends the watchdog and status messages when they are due.
pub(super) struct Heartbeat {
    service_manager: Arc<ServiceManager>,
    /// The uptime of the last watchdog message; `None`: no message yet.
    last: Option<Duration>,
    /// The last status.
    in_force: String,
}

impl Heartbeat {
    /// `in_force`: the first status. [`ServiceManager::ready`] reports it, so [`Self::beat`] sends only later changes.
    pub(super) fn new(service_manager: Arc<ServiceManager>, in_force: String) -> Self {
        Self { service_manager, last: None, in_force }
    }

    /// The last status.
    pub(super) fn in_force(&self) -> &str {
        &self.in_force
    }

    /// The uptime of the next watchdog message; `None`: there is no watchdog, or nothing has been sent yet.
    pub(super) fn due(&self) -> Option<Duration> {
        Some(self.last? + self.service_manager.watchdog? / BEATS)
    }

    /// Sends the messages that are due. The caller must have taken the node's lock after the last call. A stuck
    /// agent does not get this lock and sends no message, so the service manager restarts the agent.
    pub(super) fn beat(&mut self, in_force: String, uptime: Duration) {
        if in_force != self.in_force {
            self.service_manager.tell(&format!("STATUS={in_force}"));
            self.in_force = in_force;
        }
        let Some(watchdog) = self.service_manager.watchdog else { return };
        if self.last.is_none_or(|last| uptime.saturating_sub(last) >= watchdog / BEATS) {
            self.service_manager.tell("WATCHDOG=1");
            self.last = Some(uptime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ServiceManager {
        pub(in crate::agent::server) fn at(socket: UnixDatagram, watchdog: Duration) -> Self {
            Self { socket: Some(socket), watchdog: Some(watchdog) }
        }
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut datagram = [0; 1024];
        socket.set_nonblocking(true).unwrap();
        socket
            .recv(&mut datagram)
            .map(|size| String::from_utf8_lossy(&datagram[..size]).into_owned())
            .unwrap_or_default()
    }

    #[test]
    fn the_notify_socket_may_be_a_path_or_an_abstract_name() {
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
    fn each_timeout_has_three_watchdog_messages_and_each_new_status_is_sent() {
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
    fn an_agent_without_a_service_manager_sends_nothing() {
        let mut pulse = Heartbeat::new(Arc::new(ServiceManager::default()), String::new());
        pulse.beat("generation 1".to_owned(), Duration::from_secs(1));
        assert_eq!(pulse.last, None);
    }
}
