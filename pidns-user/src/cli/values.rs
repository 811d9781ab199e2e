//! Parses values of arguments, with helpful errors.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    str::FromStr,
    time::Duration,
};

use clap::{
    ValueEnum,
    builder::{EnumValueParser, TypedValueParser},
};
use jiff::SignedDuration;

use crate::{
    event::identity::HostPid,
    kernel::{hooks::HookSet, load::page_size},
    source::replay::Until,
    target::LAST_PID,
};

/// [`HookSet`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum HookSetName {
    /// For each hook the form that this kernel accepts: functions, and tracepoints for the rest.
    Auto,
    /// Function hooks wherever they exist; exit with code 4 if this kernel refuses one.
    Function,
    /// Only tracepoints.
    Tracepoint,
}

/// Parses the name of a set of hooks.
pub fn hook_set() -> impl TypedValueParser<Value = HookSet> {
    EnumValueParser::<HookSetName>::new().map(|name| match name {
        HookSetName::Auto => HookSet::Auto,
        HookSetName::Function => HookSet::Function,
        HookSetName::Tracepoint => HookSet::Tracepoint,
    })
}

pub(super) fn parse_moment(text: &str) -> Result<Until, String> {
    let moment = match text.strip_prefix('+') {
        Some(after) => parse_duration(after).ok().map(Until::Elapsed),
        None => text.parse().ok().map(Until::Time),
    };
    moment.ok_or_else(|| {
        "use a time with its zone, like 2026-11-23T14:03:07Z, or +30s from the start".to_owned()
    })
}

pub(super) fn parse_speed(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|speed: &f64| speed.is_finite() && *speed > 0.0)
        .ok_or_else(|| "use a number above 0: 1 is real time".to_owned())
}

pub(super) fn parse_pid(text: &str) -> Result<HostPid, String> {
    text.parse()
        .ok()
        .filter(|pid| (1..=LAST_PID).contains(pid))
        .map(HostPid)
        .ok_or_else(|| format!("use the PID of a process on the host: a number from 1 to {LAST_PID}"))
}

/// A PID in some namespace.
pub(super) fn parse_pid_somewhere(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(pid) if (1..=LAST_PID).contains(&pid) => Ok(pid),
        Ok(inum) if inum > LAST_PID => Err(format!(
            "no PID is larger than {LAST_PID}: if you mean the namespace {inum}, `pidns-trace ps {inum}` lists its processes, and --in \
             {inum} takes a PID in it"
        )),
        _ => Err(format!(
            "a PID is a number from 1 to {LAST_PID}: `pidns-trace ps NAME` lists the processes of a container, and --in NAME \
             takes a PID in it"
        )),
    }
}

/// An address to listen on, with its port. Without an address, all addresses of the host, as in other exporters.
pub(super) fn parse_listen_address(text: &str) -> Result<SocketAddr, String> {
    let advice = || {
        "use an address and a port, like 127.0.0.1:10978 or [::1]:10978, or :10978 for all addresses"
            .to_owned()
    };
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().map_err(|_| advice())?;
        // An IPv6 socket accepts IPv4 clients too.
        let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
        let all: IpAddr = if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        return Ok(SocketAddr::new(all, port));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (name, port) = text.rsplit_once(':').ok_or_else(advice)?;
    let port = port.parse().map_err(|_| advice())?;
    // Only the hosts file is read: the C library's resolver would load plugins, which a static program cannot.
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let address = address_of(name, &hosts).ok_or_else(advice)?;
    Ok(SocketAddr::new(address, port))
}

/// The address of this name in a hosts file; IPv4 is preferred.
fn address_of(name: &str, hosts: &str) -> Option<IpAddr> {
    let mut found: Vec<IpAddr> = hosts
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
        })
        .collect();
    if name.eq_ignore_ascii_case("localhost") {
        found.push(Ipv4Addr::LOCALHOST.into());
    }
    found.iter().find(|address| address.is_ipv4()).or(found.first()).copied()
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    SignedDuration::from_str(text)
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "use a time with its unit, like 30s, 500ms, 5m or 1h30m".to_owned())
}

pub(super) fn parse_ring_size(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.trim_end_matches(['B', 'b', 'i']).to_ascii_uppercase() {
        text if text.ends_with('K') => (text[..text.len() - 1].to_owned(), 1 << 10),
        text if text.ends_with('M') => (text[..text.len() - 1].to_owned(), 1 << 20),
        text => (text, 1),
    };
    let (least, most) = (page_size(), 1 << 30);
    digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|bytes| bytes.is_power_of_two() && (least..=most).contains(bytes))
        .ok_or_else(|| {
            format!("use a power of two from {}K to {}M, like 64K or 16M", least >> 10, most >> 20)
        })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn sizes_are_powers_of_two_with_units() {
        assert_eq!(parse_ring_size("64K"), Ok(64 << 10));
        assert_eq!(parse_ring_size("8MiB"), Ok(8 << 20));
        assert_eq!(parse_ring_size("1048576"), Ok(1 << 20));
        for bad in ["12345", "3M", "1K", "2048M", "M", "", "-1", "99999999999M"] {
            assert!(parse_ring_size(bad).unwrap_err().contains("power of two"), "{bad}");
        }
    }

    #[test]
    fn moments_are_times_or_offsets_from_the_start() {
        assert_eq!(parse_moment("+1m30s"), Ok(Until::Elapsed(Duration::from_secs(90))));
        let time = "2026-11-23T15:03:07.5+01:00";
        assert_eq!(parse_moment(time), Ok(Until::Time("2026-11-23T14:03:07.5Z".parse().unwrap())));
        for bad in ["", "+", "+5", "14:03", "2026-11-23", "2026-11-23T14:03:07"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
        assert!(Cli::try_parse_from(["pidns-trace", "ps", "--at", "+5s"]).is_err(), "of what recording?");
        assert!(Cli::try_parse_from(["pidns-trace", "ps", "--from", "f", "--watch"]).is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["5", "abc", "-5s", "0s", ""] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn listen_address_can_be_all_addresses_or_a_name() {
        let parse = |text: &str| parse_listen_address(text).map(|address| address.to_string());
        assert_eq!(parse("127.0.0.1:10978").as_deref(), Ok("127.0.0.1:10978"));
        assert_eq!(parse("[::1]:0").as_deref(), Ok("[::1]:0"));
        assert!(parse(":10978").is_ok_and(|all| all == "[::]:10978" || all == "0.0.0.0:10978"));
        assert_eq!(parse("localhost:1").as_deref(), Ok("127.0.0.1:1"));
        for bad in ["", ":", ":x", ":70000", "127.0.0.1", "300.1.1.1:99", "no such host:1"] {
            assert!(parse(bad).is_err_and(|error| error.contains("127.0.0.1:10978")), "{bad}");
        }
    }

    #[test]
    fn listen_name_is_resolved_from_the_hosts_file() {
        let hosts = "# 192.0.2.9 node\n::1 localhost node\n192.0.2.1\tother Node # node2\nnonsense node3\n2001:db8::1 node6";
        let found = |name: &str| address_of(name, hosts).map(|address| address.to_string());
        assert_eq!(found("node").as_deref(), Some("192.0.2.1"), "IPv4 comes first");
        assert_eq!(found("node6").as_deref(), Some("2001:db8::1"));
        assert_eq!(found("localhost").as_deref(), Some("127.0.0.1"), "with and without a line of its own");
        for name in ["node2", "node3", "192.0.2.1", ""] {
            assert_eq!(found(name), None, "{name:?}");
        }
    }

    #[test]
    fn pids_out_of_range_are_refused() {
        let pids = |text: &str| {
            Cli::try_parse_from(["pidns-trace", "-p", text])
                .map(|cli| cli.trace.filters.pids)
                .map_err(|error| error.to_string())
        };
        assert_eq!(pids("1"), Ok(vec![HostPid(1)]));
        assert_eq!(pids("7,4194303"), Ok(vec![HostPid(7), HostPid(4194303)]));
        for bad in ["0", "4194304", "-1", "abc", "", "7,x"] {
            let error = pids(bad).unwrap_err();
            assert!(error.contains("from 1 to 4194303"), "{bad}: {error}");
        }
    }
}
