//! The variables that a chat template reads. They show what it can take, such as tools.

use std::collections::HashSet;

use minijinja::Environment;

use super::{ChatTemplate, NAME};

/// The names of the variables that the template in `environment` reads before it sets them, found without rendering it.
/// A variable that is read in one branch only is among them.
pub(super) fn of(environment: &Environment<'_>) -> HashSet<String> {
    environment.get_template(NAME).map(|template| template.undeclared_variables(false)).unwrap_or_default()
}

// === impl ChatTemplate ===

impl ChatTemplate {
    /// The names of the variables that the template reads before it sets them.
    #[must_use]
    pub fn variables(&self) -> &HashSet<String> {
        &self.variables
    }

    /// The template's source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_reads_tools_shows_it_and_one_that_sets_its_own_does_not() {
        let reads = |source: &str, name: &str| ChatTemplate::new(source, "", "").unwrap().variables().contains(name);
        assert!(reads("{% if tools %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}", "tools"));
        assert!(reads("{% if not tools is defined %}{% set tools = none %}{% endif %}", "tools"));
        assert!(reads("{% if enable_thinking is defined and not enable_thinking %}x{% endif %}", "enable_thinking"));
        assert!(!reads("{% set tools = [] %}{{ tools }}{{ messages[0].tools }}", "tools"));
    }
}
