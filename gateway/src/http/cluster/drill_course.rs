//! The course of a drill as dashboards show it: its steps in sentences, and its report. Pure.

use serde::Serialize;

use crate::drill::{DrillProgress, DrillReport};
use crate::http::limits::DRILL_STEPS_MAX;

/// A drill that runs, or the last one that did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct DrillCourse {
    state: CourseState,
    /// The steps so far. Of very many pauses, the first ones.
    steps: Vec<String>,
    /// Left out until the drill has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<DrillReport>,
    /// The reason for which it was refused or ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CourseState {
    #[default]
    Running,
    /// The answers are equal though the fault was felt, and the cluster is whole again.
    Passed,
    /// The answers differ, the fault was not felt, or the cluster is not whole.
    Failed,
    /// There is no report.
    Stopped,
}

// === impl DrillCourse ===

impl DrillCourse {
    /// Takes notice of a step.
    pub(super) fn push(&mut self, progress: &DrillProgress) {
        if self.steps.len() < DRILL_STEPS_MAX {
            self.steps.push(progress.to_string());
        }
    }

    /// Ends it with the report, or with the reason for which there is none.
    pub(super) fn end(&mut self, ended: Result<DrillReport, String>) {
        match ended {
            Ok(report) => {
                self.state = if report.is_passed() { CourseState::Passed } else { CourseState::Failed };
                self.report = Some(report);
            }
            Err(error) => (self.state, self.error) = (CourseState::Stopped, Some(error)),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == CourseState::Running
    }

    /// True once it is known what will happen to whom, or that nothing will.
    pub(super) fn is_decided(&self) -> bool {
        !self.is_running() || !self.steps.is_empty()
    }

    /// The reason for which it was refused before its first step.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.error.as_deref().filter(|_| self.steps.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pause(token: usize) -> DrillProgress {
        DrillProgress::Resumed { token, pause: Duration::from_millis(412) }
    }

    #[test]
    fn a_course_is_decided_by_its_first_step_and_refused_without_one() {
        let mut course = DrillCourse::default();
        assert!(course.is_running() && !course.is_decided());
        let mut refused = course.clone();
        refused.end(Err("somebody's request runs".to_owned()));
        assert!(!refused.is_running() && refused.is_decided());
        assert_eq!(refused.refusal(), Some("somebody's request runs"));
        course.push(&pause(9));
        assert!(course.is_running() && course.is_decided());
        course.end(Err("the gateway ended".to_owned()));
        assert_eq!(course.refusal(), None, "it had begun");
        let shown = serde_json::to_value(&course).unwrap();
        assert_eq!(shown["state"], "stopped");
        assert_eq!(shown["steps"][0], "token 9: the stream goes on after 412 ms");
    }

    #[test]
    fn the_steps_are_bounded() {
        let mut course = DrillCourse::default();
        (0..1000).for_each(|token| course.push(&pause(token)));
        assert_eq!(course.steps.len(), DRILL_STEPS_MAX);
    }
}
