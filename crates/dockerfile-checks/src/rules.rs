//! What there is to find: names, descriptions and pages of all checks (frontend/dockerfile/linter, ruleset.go).

/// A check.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, by which it is skipped.
    pub name: &'static str,
    /// What it wants.
    pub description: &'static str,
    /// Where more is said of it; empty for nowhere.
    pub url: &'static str,
    /// Whether only those hear of it who ask.
    pub is_experimental: bool,
}

macro_rules! rules {
    ($($rule:ident $name:literal $page:literal $description:literal;)*) => {
        $(
            pub(crate) static $rule: Rule = Rule {
                name: $name,
                description: $description,
                url: concat!("https://docs.docker.com/go/dockerfile/rule/", $page, "/"),
                is_experimental: false,
            };
        )*
    };
}

rules! {
    STAGE_NAME_CASING "StageNameCasing" "stage-name-casing" "Stage names should be lowercase";
    FROM_AS_CASING "FromAsCasing" "from-as-casing" "The 'as' keyword should match the case of the 'from' keyword";
    NO_EMPTY_CONTINUATION "NoEmptyContinuation" "no-empty-continuation"
        "Empty continuation lines will become errors in a future release";
    CONSISTENT_INSTRUCTION_CASING "ConsistentInstructionCasing" "consistent-instruction-casing"
        "All commands within the Dockerfile should use the same casing (either upper or lower)";
    DUPLICATE_STAGE_NAME "DuplicateStageName" "duplicate-stage-name" "Stage names should be unique";
    RESERVED_STAGE_NAME "ReservedStageName" "reserved-stage-name" "Reserved words should not be used as stage names";
    JSON_ARGS_RECOMMENDED "JSONArgsRecommended" "json-args-recommended"
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    MAINTAINER_DEPRECATED "MaintainerDeprecated" "maintainer-deprecated"
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    UNDEFINED_ARG_IN_FROM "UndefinedArgInFrom" "undefined-arg-in-from" "FROM command must use declared ARGs";
    WORKDIR_RELATIVE_PATH "WorkdirRelativePath" "workdir-relative-path"
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    UNDEFINED_VAR "UndefinedVar" "undefined-var" "Variables should be defined before their use";
    MULTIPLE_INSTRUCTIONS_DISALLOWED "MultipleInstructionsDisallowed" "multiple-instructions-disallowed"
        "Multiple instructions of the same type should not be used in the same stage";
    LEGACY_KEY_VALUE_FORMAT "LegacyKeyValueFormat" "legacy-key-value-format"
        "Legacy key/value format with whitespace separator should not be used";
    REDUNDANT_TARGET_PLATFORM "RedundantTargetPlatform" "redundant-target-platform"
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    SECRETS_USED_IN_ARG_OR_ENV "SecretsUsedInArgOrEnv" "secrets-used-in-arg-or-env"
        "Sensitive data should not be used in the ARG or ENV commands";
    INVALID_DEFAULT_ARG_IN_FROM "InvalidDefaultArgInFrom" "invalid-default-arg-in-from"
        "Default value for global ARG results in an empty or invalid base image name";
    FROM_PLATFORM_FLAG_CONST_DISALLOWED "FromPlatformFlagConstDisallowed" "from-platform-flag-const-disallowed"
        "FROM --platform flag should not use a constant value";
    EXPOSE_PROTO_CASING "ExposeProtoCasing" "expose-proto-casing" "Protocol in EXPOSE instruction should be lowercase";
    EXPOSE_INVALID_FORMAT "ExposeInvalidFormat" "expose-invalid-format"
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
}

/// It has no page.
pub(crate) static INVALID_BASE_IMAGE_PLATFORM: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    description: "Base image platform does not match expected target platform",
    url: "",
    is_experimental: false,
};

pub(crate) static COPY_IGNORED_FILE: Rule = Rule {
    name: "CopyIgnoredFile",
    description: "Attempting to Copy file that is excluded by .dockerignore",
    url: "https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/",
    is_experimental: true,
};

pub(crate) static INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    name: "InvalidDefinitionDescription",
    description: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is \
                  not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    url: "https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/",
    is_experimental: true,
};

/// `(did you mean x?)` behind a sentence.
fn hint(meant: Option<&str>, sign: &str) -> String {
    meant.map(|meant| format!(" (did you mean {sign}{meant}?)")).unwrap_or_default()
}

pub(crate) fn undefined_arg(name: &str, meant: Option<&str>) -> String {
    format!("FROM argument '{name}' is not declared{}", hint(meant, ""))
}

pub(crate) fn undefined_variable(name: &str, meant: Option<&str>) -> String {
    format!("Usage of undefined variable '${name}'{}", hint(meant, "$"))
}

pub(crate) fn legacy(instruction: &str) -> String {
    format!("\"{instruction} key=value\" should be used instead of legacy \"{instruction} key value\" format")
}

pub(crate) fn json_recommended(instruction: &str) -> String {
    format!("JSON arguments recommended for {instruction} to prevent unintended behavior related to OS signals")
}

pub(crate) fn several(instruction: &str) -> String {
    format!(
        "Multiple {instruction} instructions should not be used in the same stage because only the last one will be used"
    )
}

pub(crate) fn casing(instruction: &str, wanted: &str) -> String {
    format!("Command '{instruction}' should match the case of the command majority ({wanted})")
}

pub(crate) fn secret(instruction: &str, name: &str) -> String {
    format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})")
}
