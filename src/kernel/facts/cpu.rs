//! Reads the resolution of timers, the clock source, and what delays a CPU: other guests, other tasks, idle states.

use std::{fs, io};

use rustix::time::{ClockId, clock_getres};

use super::{malformed, number, read};
use crate::{doctor::TimeFacts, kernel::namespace::about};

/// The folder of the idle states of the first CPU. The states of all CPUs are alike on nearly every machine.
const IDLE_STATES: &str = "/sys/devices/system/cpu/cpu0/cpuidle";

/// Reads timers and CPUs.
pub fn time_facts() -> TimeFacts {
    let nanos = |clock| {
        let resolution = clock_getres(clock);
        u64::try_from(resolution.tv_sec).unwrap_or_default() * 1_000_000_000
            + u64::try_from(resolution.tv_nsec).unwrap_or_default()
    };
    let clock_source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let stat = read("/proc/stat");
    TimeFacts {
        // The kernel reports the resolution of hrtimers: 1 ns, or a tick without high-resolution timers
        // (`hrtimer_get_res`).
        timer_ns: nanos(ClockId::Monotonic),
        // A coarse clock advances with the tick.
        tick_ns: nanos(ClockId::MonotonicCoarse),
        clock_source: clock_source.map(|name| name.trim().to_owned()).into(),
        cpus: stat.as_deref().map(cpus).into(),
        steal_percent: stat
            .as_deref()
            .map_err(ToString::to_string)
            .and_then(|stat| steal_percent(stat).ok_or_else(|| malformed("/proc/stat").to_string()))
            .into(),
        busy_percent: busy_percent().into(),
        load: load().into(),
        idle_exit_us: idle_exit_us().into(),
    }
}

/// The number of CPUs in /proc/stat (`proc_stat(5)`).
fn cpus(stat: &str) -> usize {
    stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count()
}

/// The share of stolen time since boot, in percent: the eighth number of the line `cpu`.
fn steal_percent(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // The times of guests after the eighth number are parts of the others.
    let total: u64 = times.iter().take(8).sum();
    Some(100.0 * *times.get(7)? as f64 / total.max(1) as f64)
}

/// `some avg10` of Documentation/accounting/psi.rst.
fn busy_percent() -> io::Result<f64> {
    const FILE: &str = "/proc/pressure/cpu";
    let text = read(FILE)?;
    let average = text.split_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse().ok());
    average.ok_or_else(|| malformed(FILE))
}

/// The first number of /proc/loadavg (`proc_loadavg(5)`).
fn load() -> io::Result<f64> {
    const FILE: &str = "/proc/loadavg";
    read(FILE)?.split_whitespace().next().and_then(|load| load.parse().ok()).ok_or_else(|| malformed(FILE))
}

/// The exit latency of the deepest enabled idle state (Documentation/admin-guide/pm/cpuidle.rst). Without cpuidle, a
/// CPU has no idle state that takes longer to leave than an interrupt.
fn idle_exit_us() -> io::Result<u64> {
    let states = match fs::read_dir(IDLE_STATES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::exists("/sys/devices/system/cpu")? => {
            return Ok(0);
        }
        states => states.map_err(|error| about(IDLE_STATES, &error))?,
    };
    let mut deepest = 0;
    for state in states {
        let state = state?.path().display().to_string();
        if number::<u64>(&format!("{state}/disable"))? == 0 {
            deepest = deepest.max(number(&format!("{state}/latency"))?);
        }
    }
    Ok(deepest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stolen_share_counts_no_time_of_guests_twice() {
        let stat = "cpu  50 0 10 20 5 5 0 10 40 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        assert_eq!(steal_percent(stat), Some(10.0));
        assert_eq!(cpus(stat), 2);
        assert_eq!(steal_percent("cpu  1 2 3\n"), None);
    }

    #[test]
    fn this_machine_has_timers_and_ticks() {
        let time = time_facts();
        assert!(time.timer_ns > 0 && time.tick_ns >= time.timer_ns, "{time:?}");
        assert!(time.cpus.known().is_some_and(|cpus| *cpus > 0), "{time:?}");
    }
}
