//! Parts of the schema that the derive macros cannot express.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

/// A duration as in Go. The length is bounded to limit the cost of CEL rules.
pub(crate) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 32, "pattern": "^([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$"})
}

/// An optional [`duration`].
pub(crate) fn optional_duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "nullable": true, "maxLength": 32, "pattern": "^([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$"})
}

fn rule(rule: &str, message: &str) -> serde_json::Value {
    json!({"rule": rule, "message": message})
}

/// Items of a cron field: `*`, `N` or `N-N`, with or without a step, separated by commas.
fn cron_field(number: &str) -> String {
    let item = format!("([*?]|({number})(-({number}))?)(/0*[1-9][0-9]*)?");
    format!("{item}(,{item})*")
}

/// A cron expression with five fields. The operator computes `H`, and checks what a regular expression cannot.
pub(crate) fn cron(_: &mut SchemaGenerator) -> Schema {
    const SPACE: &str = "[[:space:]]+";
    const MONTHS: &str = "0*[1-9]|0*1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec";
    const DAYS: &str = "0*[0-6]|sun|mon|tue|wed|thu|fri|sat";
    let (any, hash) = ("[^[:space:]]+", "H(/0*[1-9][0-9]*)?");
    let five = format!("^[[:space:]]*{any}({SPACE}{any}){{4}}[[:space:]]*$");
    // A rule per field, each skipped when the number of fields is wrong, so that the user gets one message.
    let field = |position: usize, pattern: &str, message: &str| {
        let before = format!("{any}{SPACE}").repeat(position);
        let pattern = format!("(?i)^[[:space:]]*{before}({pattern})([[:space:]]|$)");
        rule(&format!("!self.matches('{five}') || self.matches('{pattern}')"), message)
    };
    let numbers_or_hash = |number: &str| format!("{}|(?-i:{hash})", cron_field(number));
    let list = |item: &str| format!("({item})(,({item}))*");
    let dates = [
        format!("{}{SPACE}{}", list("0*3[01]"), list("0*2|feb")),
        format!("{}{SPACE}{}", list("0*31"), list("0*[2469]|0*11|feb|apr|jun|sep|nov")),
    ];
    let never = format!("(?i)^[[:space:]]*{any}{SPACE}{any}{SPACE}({}){SPACE}[*?][[:space:]]*$", dates.join("|"));
    json_schema!({"type": "string", "minLength": 1, "maxLength": 128, "x-kubernetes-validations": [
        rule(&format!("self.matches('{five}')"),
            "a schedule must have five fields: minute, hour, day of month, month, day of week"),
        field(0, &numbers_or_hash("0*[0-5]?[0-9]"), "the minute must be 0 to 59, *, a range, a list, a step, or H"),
        field(1, &numbers_or_hash("0*([01]?[0-9]|2[0-3])"), "the hour must be 0 to 23, *, a range, a list, a step, or H"),
        field(2, &cron_field("0*([1-9]|[12][0-9]|3[01])"), "the day of month must be 1 to 31, *, a range, a list, or a step"),
        field(3, &cron_field(MONTHS), "the month must be 1 to 12, JAN to DEC, *, a range, a list, or a step"),
        field(4, &cron_field(DAYS), "the day of week must be 0 to 6 (0 is Sunday), SUN to SAT, *, a range, a list, or a step"),
        rule(&format!("!self.matches('{never}')"), "the date must exist: the month never has this day"),
    ]})
}

/// The name of an IANA time zone. The operator checks whether it exists.
pub(crate) fn time_zone(_: &mut SchemaGenerator) -> Schema {
    const REGIONS: &str = "Africa|America|Antarctica|Arctic|Asia|Atlantic|Australia|Brazil|Canada|Chile|Etc|Europe|Indian|Mexico|Pacific|US";
    const OTHERS: &str = "CET|CST6CDT|Cuba|EET|EST|EST5EDT|Egypt|Eire|GB|GB-Eire|GMT|GMT[+-]?0|Greenwich|HST|Hongkong|Iceland|Iran|Israel|Jamaica|Japan|Kwajalein|Libya|MET|MST|MST7MDT|NZ|NZ-CHAT|Navajo|PRC|PST8PDT|Poland|Portugal|ROC|ROK|Singapore|Turkey|UCT|UTC|Universal|W-SU|WET|Zulu";
    json_schema!({"type": "string", "minLength": 1, "maxLength": 64, "x-kubernetes-validations": [
        rule(&format!("self.matches('(?i)^(({REGIONS})(/[a-z0-9_+-]+){{1,2}}|{OTHERS})$')"),
            "timeZone must be the name of an IANA time zone, such as Europe/Berlin or UTC"),
    ]})
}

/// The URL of an S3-compatible server. The agent checks the addresses that a name resolves to.
///
/// Regular expressions, because the CEL functions for URLs and addresses exceed the cost limit of a schema.
pub(crate) fn endpoint(_: &mut SchemaGenerator) -> Schema {
    const AFTER_HOST: &str = "(:[0-9]{1,5})?([/?#].*)?$";
    const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    let matches = |host: &str| format!("self.matches('(?i)^https?://{host}')");
    let url = matches(&format!("([0-9a-z._-]+|[[][0-9a-f:.]+[]]){AFTER_HOST}"));
    // Resolvers also read 2852039166, 0xa9fea9fe and 169.254.43518 as addresses.
    let number = matches(&format!("([0-9a-z._-]*[.])?(0x[0-9a-f]*|[0-9]+)[.]?{AFTER_HOST}"));
    let four = matches(&format!("{OCTET}([.]{OCTET}){{3}}{AFTER_HOST}"));
    let refused_four = matches("(0|127|169[.]254|22[4-9]|2[345][0-9])[.]");
    // ::/16 holds the loopback and unspecified addresses, and IPv4 addresses in IPv6 form.
    let six = matches("[[][0-9a-f]{1,4}:");
    // fd00:ec2::254 is the metadata service of AWS.
    let refused_six = matches("[[]((0{1,4}|fe[89ab][0-9a-f]|ff[0-9a-f]{2}):|fd00:0?ec2:[0:]*254[]])");
    let local = matches(&format!("(([0-9a-z._-]*[.])?localhost|metadata[.]google[.]internal)[.]?{AFTER_HOST}"));
    let rules = [
        rule(
            &format!("{url} || self.contains('@')"),
            "endpoint must be a URL such as https://minio.example.com or http://minio.storage.svc:9000",
        ),
        rule("!self.contains('@')", "endpoint must not contain credentials: use secretRef"),
        rule(
            &format!(
                "!{url} || (self.contains('[') ? {six} && !{refused_six} : \
                 {number} ? {four} && !{refused_four} : !{local})"
            ),
            "endpoint must not be a link-local, loopback, multicast or unspecified address",
        ),
    ];
    json_schema!({"type": "string", "nullable": true, "minLength": 8, "maxLength": 1024,
                  "x-kubernetes-validations": rules})
}

/// A Kubernetes type, which the API server validates when it is used.
pub(crate) fn foreign_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

/// A list of [`foreign_object`].
pub(crate) fn foreign_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "nullable": true, "maxItems": 64,
                  "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}})
}

/// A map of short strings.
pub(crate) fn string_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 64, "additionalProperties": {"type": "string", "maxLength": 4096}})
}

/// A list of `metav1.Condition`, as a map with the key `type`.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316,
                         "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                "message": {"type": "string", "maxLength": 32768}
            }
        }
    })
}
