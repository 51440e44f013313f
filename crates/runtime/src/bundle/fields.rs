//! The reader of config.json against everything that the specification knows, and against everything that it does not.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Every property of the specification's schema, once (runtime-spec v1.3 schema/config-schema.json and config-linux.json,
/// with what they refer to). Whoever adds one to it sees below whether anybody handles it.
const EVERY_FIELD: &str = include_str!("every_field.json");

/// What Linux ignores: they are other platforms' ways to say what `args` and `uid` say (runtime-spec config.md, "Process",
/// "Windows User"). runc ignores them, too.
const OF_OTHERS: [&str; 2] = ["process.commandLine", "process.user.username"];

/// The places of all values that are neither objects nor lists, as JSON pointers.
fn leaves(value: &Value) -> Vec<String> {
    let below = |name: String, value: &Value| leaves(value).into_iter().map(move |leaf| format!("/{name}{leaf}"));
    let escape = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(fields) => fields.iter().flat_map(|(name, value)| below(escape(name), value)).collect(),
        Value::Array(members) => {
            members.iter().enumerate().flat_map(|(index, value)| below(index.to_string(), value)).collect()
        }
        _ => vec![String::new()],
    }
}

/// `process.rlimits[0].type` of `/process/rlimits/0/type`.
fn full_name(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |name, part| match part.parse::<u32>() {
        Ok(index) => format!("{name}[{index}]"),
        Err(_) if name.is_empty() => part.to_owned(),
        // Names of the writer's choice.
        Err(_) if part.contains(['.', '~']) => format!("{name}[{:?}]", part.replace("~1", "/").replace("~0", "~")),
        Err(_) => format!("{name}.{part}"),
    })
}

fn every_field() -> Value {
    serde_json::from_str(EVERY_FIELD).unwrap()
}

/// Nothing but one value, at its place.
fn alone(every: &Value, pointer: &str) -> Value {
    pointer[1..].rsplit('/').fold(every.pointer(pointer).unwrap().clone(), |value, part| {
        match part.parse::<usize>() {
            // What stands before it in a list asks for nothing.
            Ok(index) => Value::Array((0..index).map(|_| json!({})).chain([value]).collect()),
            Err(_) => json!({ part: value }),
        }
    })
}

/// Everything that is not refused.
fn everything_done() -> Value {
    let mut config = every_field();
    while let Some(refused) = refused::of_config(&config) {
        let (above, name) = refused.rsplit_once('.').unwrap_or(("", &refused));
        let above = above.replace(['.', '['], "/").replace(']', "");
        let above = if above.is_empty() { String::new() } else { format!("/{above}") };
        config.pointer_mut(&above).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    }
    config["linux"]["personality"].as_object_mut().unwrap().remove("flags");
    config
}

fn planned(config: &Value) -> Result<Plan, String> {
    plan(config, Path::new("/bundle"), "name").map_err(|err| errdefs::chain(&err))
}

#[test]
fn every_field_of_the_specification_is_honoured_or_refused() {
    let every = every_field();
    let read = serde_json::to_value(typed::<Spec>(&every, "").unwrap()).unwrap();
    for pointer in leaves(&every) {
        let name = full_name(&pointer);
        let refused = refused::of_config(&alone(&every, &pointer));
        match refused {
            Some(refused) => assert!(name.starts_with(&refused), "{name} is refused as {refused}"),
            None if OF_OTHERS.contains(&name.as_str()) => assert_eq!(read.pointer(&pointer), None),
            None => {
                assert_eq!(read.pointer(&pointer), every.pointer(&pointer), "{name} is neither honoured nor refused")
            }
        }
    }
}

#[test]
fn all_that_is_not_refused_goes_together() {
    let plan = planned(&everything_done()).unwrap();
    assert_eq!(plan.spec.root.path, Path::new("/bundle/rootfs"));
}

#[test]
fn a_value_of_the_wrong_type_or_size_is_named() {
    let config = everything_done();
    for pointer in leaves(&config) {
        let name = full_name(&pointer);
        if OF_OTHERS.contains(&name.as_str()) {
            continue;
        }
        let value = config.pointer(&pointer).unwrap();
        let wrong =
            [json!({"wrong": true}), json!([[1]]), json!(1.5), json!(-1e30), json!(1e30), json!(true), json!("")];
        for wrong in wrong {
            // These fit.
            if value.is_boolean() && wrong.is_boolean() || value.is_string() && wrong.is_string() {
                continue;
            }
            let mut config = config.clone();
            *config.pointer_mut(&pointer).unwrap() = wrong.clone();
            let text = planned(&config).map(|_| ()).expect_err(&name);
            assert!(text.starts_with(&format!("{name}: ")), "{name} of {wrong}: {text}");
        }
    }
}

#[test]
fn words_that_nobody_knows_are_named() {
    for pointer in [
        "/process/rlimits/0/type",
        "/process/scheduler/policy",
        "/process/scheduler/flags/0",
        "/process/ioPriority/class",
        "/process/execCPUAffinity/final",
        "/linux/namespaces/2/type",
        "/linux/devices/0/type",
        "/linux/memoryPolicy/mode",
        "/linux/memoryPolicy/nodes",
        "/linux/memoryPolicy/flags/0",
        "/linux/personality/domain",
        "/linux/maskedPaths/0",
        "/hooks/poststop/0/path",
    ] {
        let mut config = everything_done();
        *config.pointer_mut(pointer).unwrap() = json!("nobody knows");
        let text = planned(&config).map(|_| ()).unwrap_err();
        assert!(text.starts_with(&format!("{}: ", full_name(pointer))), "{text}");
    }
}

/// Any JSON, with the numbers at which programs break.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![
            json!(-1),
            json!(0),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(u32::MAX),
            json!(1e300)
        ]),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["/", "..", "a\0b", "%d", "/proc/self/fd/1", "rbind", "SCHED_FIFO", "CAP_KILL"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z/.]{0,12}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The whole configuration with one value, of any depth, replaced by anything.
fn any_config() -> impl Strategy<Value = Value> {
    let config = everything_done();
    (prop::sample::select(leaves(&config)), 0..6_usize, any_json()).prop_map(move |(leaf, up, value)| {
        let mut config = config.clone();
        // So many levels up.
        let ends: Vec<_> = leaf.match_indices('/').map(|(end, _)| end).chain([leaf.len()]).collect();
        let place = &leaf[..ends.into_iter().rev().nth(up).unwrap_or(0)];
        *config.pointer_mut(place).unwrap() = value;
        remove_nulls(&mut config);
        config
    })
}

proptest! {
    #[test]
    fn no_configuration_makes_the_reader_panic(config in any_config()) {
        match planned(&config) {
            Err(text) => prop_assert!(!text.is_empty()),
            Ok(plan) => {
                // And what is recorded is read again as it was.
                let text = serde_json::to_string(&plan.spec).unwrap();
                prop_assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), plan.spec);
            }
        }
    }

    #[test]
    fn no_process_and_no_json_make_the_reader_panic(value in any_json()) {
        let _ = planned(&value);
        let _ = typed::<Process>(&value, "process");
        let _ = refused::of_config(&value);
    }
}
