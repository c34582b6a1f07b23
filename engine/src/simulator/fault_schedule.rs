//! The faults of a seed: their times and their targets. It does not know what they do.

use schema::record::ModelRecord;

use super::environment::Environment;
use super::event::Event;
use super::fault::Fault;
use super::network::FrameFaults;
use super::pin::{PinTarget, PinValue};
use super::process_id::{GATEWAYS, ProcessId};
use super::rng::Rng;
use super::time::{MS, Moment, SECOND};

/// The numbers of processes in a cluster.
#[derive(Clone, Copy)]
pub(super) struct ClusterSize {
    pub(super) gateways: usize,
    pub(super) stages: usize,
}

/// Draws and schedules the faults until `faults_end` for a cluster of this `size` that serves `model`. A barred stage
/// is barred for good. No stage is pinned then, because pins could demand the barred stage.
pub(super) fn schedule(
    size: ClusterSize,
    model: &ModelRecord,
    barred_stage: Option<ProcessId>,
    faults_end: Moment,
    env: &mut Environment,
) {
    if let Some(barred_stage) = barred_stage {
        let at = env.rng.within(SECOND..faults_end);
        env.at(at, Event::Fault(Fault::Barred(barred_stage)));
    }
    env.at(faults_end, Event::Fault(Fault::End));
    if env.rng.permille(300) {
        let rng = &mut env.rng;
        let mut rarely = |most: u64| if rng.permille(500) { rng.within(1..most) } else { 0 };
        let frame_faults = FrameFaults { lost: rarely(8), doubled: rarely(60), overtaken: rarely(40) };
        env.at(SECOND, Event::Fault(Fault::FrameFaults(frame_faults)));
    }
    for _ in 0..env.rng.within(0..3) {
        let at = env.rng.within(SECOND..faults_end);
        let gateway = ProcessId(env.rng.within(0..size.gateways as u64) as usize);
        env.at(at, Event::Fault(Fault::Inspected(gateway)));
    }
    if barred_stage.is_none() && env.rng.permille(400) {
        schedule_pins(size.stages, model, faults_end, env);
    }
    for _ in 0..env.rng.within(0..7) {
        let at = env.rng.within(500 * MS..faults_end);
        let length = length(&mut env.rng);
        for (moment, fault) in draw(size, at, length, &mut env.rng) {
            env.at(moment, Event::Fault(fault));
        }
    }
}

/// Draws and schedules the operator's commands until `faults_end`. Some pins stay.
fn schedule_pins(stages: usize, model: &ModelRecord, faults_end: Moment, env: &mut Environment) {
    for _ in 0..env.rng.within(0..5) {
        let target = PinTarget::draw(stages, &mut env.rng);
        let value = PinValue::draw(model.layers, model.kv_tokens, &mut env.rng);
        let at = env.rng.within(0..faults_end);
        env.at(at, Event::Fault(Fault::Pinned(target, value)));
        if env.rng.permille(600) {
            let end = at + length(&mut env.rng);
            env.at(end.min(faults_end), Event::Fault(Fault::Unpinned(target)));
        }
    }
}

/// Draws the length of a fault: from far below the time of a lease to several of them.
fn length(rng: &mut Rng) -> Moment {
    if rng.permille(500) { rng.within(20 * MS..SECOND) } else { rng.within(SECOND..9 * SECOND) }
}

fn draw(size: ClusterSize, at: Moment, length: Moment, rng: &mut Rng) -> Vec<(Moment, Fault)> {
    let ClusterSize { gateways, stages } = size;
    let processes = (gateways + stages) as u64;
    // Gateways' numbers, then the stages'.
    let process =
        |place: u64| ProcessId(place as usize + if (place as usize) < gateways { 0 } else { GATEWAYS - gateways });
    let gateway = process(rng.within(0..gateways as u64));
    let stage = process(rng.within(gateways as u64..processes));
    let place = rng.within(0..processes);
    let any_process = process(place);
    let end = at + length;
    match rng.within(0..20) {
        0..=2 => vec![(at, Fault::Crashes(stage)), (end, Fault::Starts(stage))],
        3..=5 => vec![(at, Fault::Freezes(stage)), (end, Fault::Thaws(stage))],
        6 => vec![(at, Fault::Freezes(gateway)), (end, Fault::Thaws(gateway))],
        7 => vec![(at, Fault::Stops(stage)), (end, Fault::Starts(stage))],
        8 => {
            let with_leases = rng.permille(500);
            vec![(at, Fault::StoreGoes), (end, Fault::StoreComes { with_leases })]
        }
        9 | 10 => vec![(at, Fault::StoreCut(any_process)), (end, Fault::StoreMended(any_process))],
        11 | 12 => {
            let to = process((place + rng.within(1..processes)) % processes);
            let mut cuts = vec![(at, Fault::Cut { from: any_process, to, until: end })];
            if rng.permille(600) {
                cuts.push((at, Fault::Cut { from: to, to: any_process, until: end }));
            }
            cuts
        }
        13 => (0..rng.within(1..4)).map(|number| (at + number, Fault::Breaks(rng.within(0..1000)))).collect(),
        16 => vec![(at, Fault::Barred(any_process)), (end, Fault::Unbarred(any_process))],
        17 => vec![(at, Fault::StoreEmptied)],
        18 => vec![(at, Fault::Corrupted { choice: rng.within(0..1000), deletes: rng.permille(500) })],
        19 => vec![(at, Fault::Forged)],
        14 => vec![(at, if rng.permille(700) { Fault::Revoked(any_process) } else { Fault::ClaimsDeleted })],
        _ if rng.permille(400) => vec![(at, Fault::Crashes(gateway)), (end, Fault::Starts(gateway))],
        _ => vec![(at, Fault::Breaks(rng.within(0..1000)))],
    }
}
