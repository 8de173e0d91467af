//! Judges timers, the load of the CPUs, and their idle states.

use super::{Check, Fact, Finding, Needs, TimeFacts};

/// The resolution of high-resolution timers: `hrtimer_get_res` reports 1 ns. Without them, it reports a tick.
const FINE_NS: u64 = 1_000;

/// The clock sources that are slow to read or coarse (Documentation/timers/timekeeping.rst).
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];

/// The share of stolen CPU time that is noted, in percent. At 1 %, one millisecond in 100 has no CPU.
const STOLEN: f64 = 1.0;

/// The share of the last 10 s in which tasks waited for a CPU that is noted, in percent.
const BUSY: f64 = 20.0;

/// The exit latency of an idle state that is noted, in microseconds: half of the least tolerance of `verify`, 0.2 ms.
const SLOW_EXIT_US: u64 = 100;

/// A delay may be this many times the exit latency, or more: then the latency is at most 1 % of the delay.
const FRACTION: u64 = 100;

pub(super) fn judge(time: &TimeFacts, needs: Option<&Needs>) -> Vec<Finding> {
    vec![timers(time), clock_source(time), load(time), steal(time), idle(time, needs)]
}

fn timers(time: &TimeFacts) -> Finding {
    let tick = time.tick_ns as f64 / 1e6;
    if time.timer_ns <= FINE_NS {
        return Check::Timers.ok(format!("high-resolution timers are on (HZ is {:.0})", 1e3 / tick));
    }
    Check::Timers
        .problem(format!("high-resolution timers are off: timers have a resolution of {tick} ms"))
        .effect(format!("netem rounds every delay up to the next {tick} ms"))
        .remedy("boot without highres=off, on a kernel with CONFIG_HIGH_RES_TIMERS")
}

fn clock_source(time: &TimeFacts) -> Finding {
    Check::Timers.of("the clock source", &time.clock_source, |name| {
        if !SLOW_CLOCKS.contains(&name.as_str()) {
            return Check::Timers.ok(format!("the clock source is {name}"));
        }
        Check::Timers
            .note(format!("the clock source is {name}, which is slow to read or coarse"))
            .effect("each packet costs more CPU time, and measured times are less exact")
            .remedy("see /sys/devices/system/clocksource/clocksource0/available_clocksource; boot with clocksource=tsc")
    })
}

/// Judges the load by the time that tasks waited. A kernel without this figure (`CONFIG_PSI`) has only the load average.
fn load(time: &TimeFacts) -> Finding {
    let busy = |text: String| {
        Check::Cpu
            .note(text)
            .effect("applications and measurements are late, beyond the delays of the topology")
            .remedy("stop other work; see it: top")
    };
    match (&time.busy_percent, &time.load, &time.cpus) {
        (Fact::Known(share), ..) if *share >= BUSY => {
            busy(format!("tasks waited for a CPU for more than {BUSY} % of the last 10 s"))
        }
        (Fact::NotKnown(_), Fact::Known(load), Fact::Known(cpus)) if *load > *cpus as f64 => {
            busy("more tasks than CPUs were ready to run in the last minute".to_owned())
        }
        (Fact::NotKnown(_), Fact::NotKnown(why), _) | (Fact::NotKnown(_), _, Fact::NotKnown(why)) => {
            Check::Cpu.not_known("the load of the CPUs", why)
        }
        _ => Check::Cpu.ok("the CPUs are not busy"),
    }
}

fn steal(time: &TimeFacts) -> Finding {
    Check::Cpu.of("the CPU time that the hypervisor took", &time.steal_percent, |stolen| {
        if *stolen < STOLEN {
            return Check::Cpu.ok(format!("the hypervisor took less than {STOLEN} % of the CPU time"));
        }
        Check::Cpu
            .note(format!("the hypervisor took {stolen:.0} % of the CPU time since boot"))
            .effect("packets leave netem late while the machine has no CPU")
            .remedy("use a dedicated host, or CPUs of your own (pinning)")
    })
}

/// Judges the deepest idle state. A packet leaves netem by a timer, and the CPU of this timer may have to wake up first.
fn idle(time: &TimeFacts, needs: Option<&Needs>) -> Finding {
    let shortest = needs.and_then(|needs| needs.shortest_delay);
    Check::Idle.of("the idle states of the CPUs", &time.idle_exit_us, |exit| {
        let is_large = |delay: u64| exit.saturating_mul(1_000).saturating_mul(FRACTION) > delay;
        if *exit < SLOW_EXIT_US || shortest.is_some_and(|delay| !is_large(delay)) {
            return Check::Idle.ok("the CPUs wake up fast enough");
        }
        Check::Idle
            .note(format!("a CPU needs up to {exit} µs to wake up"))
            .effect("packets leave netem late by up to this time while the CPU is idle")
            .remedy(format!("cpupower idle-set --disable-by-latency {SLOW_EXIT_US}"))
    })
}
