//! The programs. In values, `{url}` is the endpoint's address, `{v1}` that of its OpenAI API, `{model}` the model and
//! `{key}` the API key.

/// One program.
#[derive(Debug, Clone, Copy)]
pub struct Launcher {
    /// The name of its executable.
    pub name: &'static str,
    /// Its name for people.
    pub what: &'static str,
    /// Variables of its environment.
    pub variables: &'static [Setting],
    /// Arguments that come before the user's own.
    pub arguments: &'static [Setting],
}

/// A variable or an argument.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The variable's name. Empty for an argument.
    pub name: &'static str,
    /// The value.
    pub value: &'static str,
    /// True if the value is JSON or TOML, where what is filled in stands between quotes.
    pub quotes: bool,
}

const fn set(name: &'static str, value: &'static str) -> Setting {
    Setting { name, value, quotes: false }
}

const fn argument(value: &'static str) -> Setting {
    Setting { name: "", value, quotes: true }
}

/// The programs that are known, and for all others what their libraries read.
pub const LAUNCHERS: &[Launcher] = &[
    Launcher {
        name: "claude",
        what: "Claude Code",
        // Each of its tiers, so that nothing asks for a model that is not there.
        variables: &[
            set("ANTHROPIC_BASE_URL", "{url}"),
            set("ANTHROPIC_AUTH_TOKEN", "{key}"),
            set("ANTHROPIC_MODEL", "{model}"),
            set("ANTHROPIC_DEFAULT_OPUS_MODEL", "{model}"),
            set("ANTHROPIC_DEFAULT_SONNET_MODEL", "{model}"),
            set("ANTHROPIC_DEFAULT_HAIKU_MODEL", "{model}"),
            set("ANTHROPIC_SMALL_FAST_MODEL", "{model}"),
            set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ],
        arguments: &[],
    },
    Launcher {
        name: "codex",
        what: "OpenAI's Codex",
        variables: &[set("OPENAI_API_KEY", "{key}")],
        arguments: &[
            argument("-c"),
            argument("model=\"{model}\""),
            argument("-c"),
            argument("model_provider=\"baton\""),
            argument("-c"),
            argument("model_providers.baton.name=\"baton\""),
            argument("-c"),
            argument("model_providers.baton.base_url=\"{v1}\""),
            argument("-c"),
            argument("model_providers.baton.wire_api=\"responses\""),
            argument("-c"),
            argument("model_providers.baton.env_key=\"OPENAI_API_KEY\""),
        ],
    },
    Launcher {
        name: "aider",
        what: "aider",
        variables: &[
            set("OPENAI_API_BASE", "{v1}"),
            set("OPENAI_API_KEY", "{key}"),
            set("AIDER_MODEL", "openai/{model}"),
            set("AIDER_WEAK_MODEL", "openai/{model}"),
            set("AIDER_SHOW_MODEL_WARNINGS", "false"),
        ],
        arguments: &[],
    },
    Launcher {
        name: "opencode",
        what: "opencode",
        variables: &[Setting {
            name: "OPENCODE_CONFIG_CONTENT",
            value: "{\"model\":\"baton/{model}\",\"small_model\":\"baton/{model}\",\"provider\":{\"baton\":{\
                    \"npm\":\"@ai-sdk/openai-compatible\",\"name\":\"baton\",\
                    \"options\":{\"baseURL\":\"{v1}\",\"apiKey\":\"{key}\"},\"models\":{\"{model}\":{}}}}}",
            quotes: true,
        }],
        arguments: &[],
    },
    Launcher {
        name: "goose",
        what: "goose",
        variables: &[
            set("GOOSE_PROVIDER", "openai"),
            set("GOOSE_MODEL", "{model}"),
            set("OPENAI_HOST", "{url}"),
            set("OPENAI_BASE_PATH", "v1/chat/completions"),
            set("OPENAI_API_KEY", "{key}"),
        ],
        arguments: &[],
    },
    Launcher {
        name: "qwen",
        what: "Qwen Code",
        variables: &[set("OPENAI_BASE_URL", "{v1}"), set("OPENAI_API_KEY", "{key}"), set("OPENAI_MODEL", "{model}")],
        arguments: &[],
    },
    Launcher { name: "ollama", what: "Ollama's command", variables: &[set("OLLAMA_HOST", "{url}")], arguments: &[] },
    Launcher {
        name: "*",
        what: "any other program, by what the libraries of OpenAI, Anthropic and Ollama read",
        variables: &[
            set("OPENAI_BASE_URL", "{v1}"),
            set("OPENAI_API_BASE", "{v1}"),
            set("OPENAI_API_KEY", "{key}"),
            set("OPENAI_MODEL", "{model}"),
            set("ANTHROPIC_BASE_URL", "{url}"),
            set("ANTHROPIC_AUTH_TOKEN", "{key}"),
            set("ANTHROPIC_MODEL", "{model}"),
            set("OLLAMA_HOST", "{url}"),
        ],
        arguments: &[],
    },
];
