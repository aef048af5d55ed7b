//! The controller's variables: the server keeps whatever is written, so a mistake is found here or never.

use super::Say;
use super::access::proxy_url;
use super::toolkit::is_cidr;
use crate::finding::Code;
use crate::kind::cluster::{RESERVED, Role, VARIABLES, Where};

/// `stunnelTcpProxy` as Ansible's variables are called: `stunnel_tcp_proxy`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

pub(super) fn check(say: &mut Say<'_>) {
    let spec = say.spec();
    let Some(toolkit) = &spec.migration_toolkit else { return };
    let controller = &toolkit.controller;
    let at = |field: &str| format!("spec.migrationToolkit.controller.{field}");
    for name in controller.variables.keys() {
        let path = at(&format!("variables.{name}"));
        // The operator takes camel case for the same variable.
        let snake = snake_case(name);
        if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| *reserved == snake) {
            say.at(Code::Contradiction, &path, format!("`{name}` is not set by hand: {why}"), "take it out");
        } else if let Some(v) = VARIABLES.iter().find(|v| v.name == name || snake_case(v.name) == snake) {
            say.at(
                Code::Contradiction,
                &path,
                format!("`{name}` has a field of its own, which is checked"),
                format!("write `{}` in `controller`", v.field),
            );
        }
    }
    for (field, url) in [("httpProxy", &controller.http_proxy), ("httpsProxy", &controller.https_proxy)] {
        if let Some(url) = url {
            proxy_url(say, &at(field), url, &["http", "https"]);
        }
    }
    for (i, entry) in controller.no_proxy.iter().flat_map(|n| &n.0).enumerate() {
        if let Some(why) = no_proxy(entry) {
            let hint = "`.example.com` (its subdomains), `example.com`, an address, a range like `10.0.0.0/16`, or `*`";
            say.at(
                Code::WrongValue,
                &format!("{}[{i}]", at("noProxy")),
                format!("`{}` {why}", entry.escape_debug()),
                hint,
            );
        }
    }
    // Where the cluster-wide Proxy is inherited, `noProxy` alone may be meant to lengthen its list: it replaces it.
    if controller.no_proxy.is_some() && controller.http_proxy.is_none() && controller.https_proxy.is_none() {
        say.warn(
            Code::Contradiction,
            &at("noProxy"),
            "`noProxy` is ignored while neither `httpProxy` nor `httpsProxy` is set (migration guide, 3.4.3)",
            "add the proxy, or take it out",
        );
    }
    if controller.volume_resizing_threshold.is_some_and(|n| !(1..=99).contains(&n)) {
        say.at(Code::WrongValue, &at("volumeResizingThreshold"), "this is a percentage", "1 to 99");
    }
    let given = serde_json::to_value(controller).unwrap_or_default();
    for v in VARIABLES {
        let Some(value) = given.get(v.field) else { continue };
        let is_quantity = v.field.ends_with("Limit") || v.field.ends_with("Request");
        if let Some(text) = value.as_str().filter(|_| is_quantity)
            && !quantity(text)
        {
            say.at(
                Code::WrongValue,
                &at(v.field),
                format!("`{}` is no quantity of Kubernetes", text.escape_debug()),
                "write it like `500m` or `2` for CPUs, `512Mi` or `2Gi` for memory",
            );
        }
        if v.on == Where::Control && spec.role == Role::Remote {
            say.warn(
                Code::Contradiction,
                &at(v.field),
                format!("`{}` has no effect on a remote cluster", v.field),
                "set it on the control cluster",
            );
        }
    }
    if controller.stunnel_tcp_proxy.is_some() && spec.role == Role::Remote {
        say.warn(
            Code::Contradiction,
            &at("stunnelTcpProxy"),
            "`stunnelTcpProxy` has no effect on a remote cluster",
            "set it on the control cluster",
        );
    }
}

/// Why an entry is none.
fn no_proxy(entry: &str) -> Option<&'static str> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.split('.').all(|label| {
                let is_plain = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
                !label.is_empty() && is_plain && !label.starts_with('-') && !label.ends_with('-')
            })
    };
    match entry {
        "*" => None,
        _ if entry.contains(',') => Some("is more than one entry"),
        _ if entry.contains("://") => Some("is a URL, and entries are destinations"),
        _ if entry.starts_with("*.") => Some("has a `*` that is not understood: subdomains begin with a dot"),
        _ if entry.contains('/') => (!is_cidr(entry)).then_some("is no range of addresses"),
        _ if entry.parse::<std::net::IpAddr>().is_ok() => None,
        _ => {
            let (name, port) = entry.rsplit_once(':').map_or((entry, None), |(name, port)| (name, Some(port)));
            let is_port = port.is_none_or(|p| p.parse::<u16>().is_ok());
            (!is_port || !is_name(name.strip_prefix('.').unwrap_or(name))).then_some("is no name, domain or address")
        }
    }
}

/// Whether a text is a quantity (Kubernetes' resource.Quantity, without exponents).
fn quantity(text: &str) -> bool {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    number.parse::<f64>().is_ok()
        && !number.starts_with('.')
        && !number.ends_with('.')
        && ["", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].contains(&unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_without_proxy_are_checked_for_their_form() {
        for good in ["*", ".y.com", "y.com", "10.0.0.1", "10.0.0.0/16", "fd00::/8", "::1", "registry:5000", "svc"] {
            assert_eq!(no_proxy(good), None, "{good}");
        }
        for bad in ["", "a,b", "http://y.com", "*.y.com", "10.0.0.0/64", "y com", ".", "a..b", "-a", "y.com:port"] {
            assert!(no_proxy(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for good in ["1", "100m", "1.5", "2Gi", "512Mi", "1k"] {
            assert!(quantity(good), "{good}");
        }
        for bad in ["", "Gi", "1 Gi", "2GB", "1.", ".5", "-1", "1e3", "NaN"] {
            assert!(!quantity(bad), "{bad}");
        }
    }
}
