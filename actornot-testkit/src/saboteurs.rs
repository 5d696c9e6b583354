//! Queues with one mistake each, and the behaviour that must find it.

use actornot_core::seam::Mistake;

use crate::{Bug, MemoryBackend};

/// One mistake that an adapter could make.
#[derive(Debug, Clone, Copy)]
pub struct Saboteur {
    made: Made,
    /// What it is.
    pub mistake: &'static str,
    /// The behaviour that must fail, among others that may.
    pub caught_by: &'static str,
}

/// Where a mistake is made.
#[derive(Debug, Clone, Copy)]
enum Made {
    InQueue(Bug),
    InLoop(Mistake),
}

impl Saboteur {
    /// A fresh backend with this mistake.
    pub fn backend(&self) -> MemoryBackend {
        match self.made {
            Made::InQueue(bug) => MemoryBackend::with_bug(bug),
            Made::InLoop(mistake) => MemoryBackend::with_mistake(mistake),
        }
    }
}

const fn saboteur(bug: Bug, mistake: &'static str, caught_by: &'static str) -> Saboteur {
    Saboteur { made: Made::InQueue(bug), mistake, caught_by }
}

const fn in_loop(made: Mistake, mistake: &'static str, caught_by: &'static str) -> Saboteur {
    Saboteur { made: Made::InLoop(made), mistake, caught_by }
}

/// All of them.
#[rustfmt::skip]
pub static SABOTEURS: &[Saboteur] = &[
    saboteur(Bug::FenceNotChecked, "no fence check", "commit::a_commit_under_an_older_fence_changes_nothing"),
    saboteur(Bug::NonceIgnored, "the nonce is ignored", "commit::a_holder_that_was_taken_over_changes_nothing"),
    saboteur(Bug::CommitKeepsFence, "a late duplicate of an earlier commit of the same holder is applied", "commit::an_earlier_commit_that_arrives_late_changes_nothing"),
    saboteur(Bug::BatchReadBeforeEnqueue, "the batch is read in the enqueue's own snapshot", "enqueue::the_lock_of_the_same_trip_sees_the_message"),
    saboteur(Bug::AckWatermark, "acknowledges everything up to the last handled", "commit::what_came_before_the_batch_meanwhile_is_not_acknowledged_with_it"),
    saboteur(Bug::AckBeforeChecks, "acknowledges before the state is stored", "commit::a_refused_commit_acknowledges_nothing"),
    saboteur(Bug::AckClearsQueue, "a commit clears what was posted during the run", "commit::posts_during_a_run_survive_its_commit"),
    saboteur(Bug::ReleaseWithoutLooking, "lets go without looking at the queue", "commit::a_holder_looks_at_the_queue_before_it_lets_go"),
    saboteur(Bug::PostOvertakesBacklog, "a post that gets the lock is handed out before what was queued", "enqueue::a_post_that_gets_the_lock_is_handed_what_was_queued_before"),
    saboteur(Bug::DuplicateEndsPost, "what is posted together with a duplicate, behind it, is dropped", "walk::a_queue_is_what_its_calls_make_of_it"),
    saboteur(Bug::RedriveBeforeDue, "a letter is redriven to before what fell due", "poison::a_redriven_letter_stands_where_it_was_put_beside_what_fell_due_before"),
    saboteur(Bug::PostResetsWait, "a post resets the backoff", "enqueue::a_post_does_not_shorten_a_wait"),
    saboteur(Bug::AttemptCountedAfterRun, "the attempt is counted after the run", "poison::an_attempt_is_counted_before_it_is_run"),
    saboteur(Bug::ResultsSwapped, "the results of a slice are swapped", "slice::answers_come_in_the_order_of_the_slice"),
    saboteur(Bug::NeighbourFails, "one bad entity fails its neighbours", "slice::one_that_fails_does_not_fail_its_neighbours"),
    saboteur(Bug::NewestFirst, "newest first", "enqueue::messages_are_handed_out_in_the_order_of_their_posts"),
    saboteur(Bug::LeaseNeverOver, "the lease never expires", "lock::an_expired_lease_can_be_taken_over"),
    saboteur(Bug::LeaseAlwaysOver, "the lock is always granted", "lock::a_held_lock_is_not_granted_again"),
    saboteur(Bug::GlobalLock, "one lock for all entities", "lock::different_entities_are_held_at_once"),
    saboteur(Bug::AckForgetsSeen, "ids are forgotten when they are handled", "enqueue::an_id_is_remembered_after_it_was_handled"),
    saboteur(Bug::PurgeForgetsSeen, "ids are forgotten when the entity is deleted", "enqueue::an_id_is_remembered_over_a_purge"),
    saboteur(Bug::EnqueueLost, "a post is answered and not stored", "enqueue::an_accepted_message_is_in_the_database"),
    saboteur(Bug::EnqueueForgotten, "ids are not remembered", "enqueue::an_id_is_accepted_once"),
    saboteur(Bug::DuplicateOverwrites, "the last payload of an id wins", "enqueue::the_first_payload_of_an_id_wins"),
    saboteur(Bug::RetentionForever, "ids are remembered for ever", "enqueue::an_id_is_forgotten_after_its_retention"),
    saboteur(Bug::SeenAcrossEntities, "ids of all entities share one memory", "enqueue::ids_of_different_entities_never_meet"),
    saboteur(Bug::BacklogIgnored, "no backlog limit", "enqueue::a_full_backlog_refuses_what_does_not_fit"),
    saboteur(Bug::BacklogFullForgetsDuplicates, "a full backlog forgets duplicates", "enqueue::a_duplicate_is_told_even_when_the_backlog_is_full"),
    saboteur(Bug::DelayIgnored, "delays are ignored", "enqueue::a_delayed_message_waits_for_its_time"),
    saboteur(Bug::DelayedForgotten, "delayed messages never join", "enqueue::a_delayed_message_joins_the_tail_when_it_falls_due"),
    saboteur(Bug::DelayedJoinsLate, "delayed messages join behind later posts", "enqueue::a_delayed_message_joins_the_tail_when_it_falls_due"),
    saboteur(Bug::PayloadRewritten, "payloads are parsed and written anew", "enqueue::payloads_survive_byte_for_byte"),
    saboteur(Bug::HeadersLost, "headers are not stored", "enqueue::headers_travel_with_their_message"),
    saboteur(Bug::KeysFoldCase, "keys fold case", "enqueue::keys_are_told_apart_byte_for_byte"),
    saboteur(Bug::IdsFoldCase, "ids fold case", "enqueue::ids_are_told_apart_byte_for_byte"),
    saboteur(Bug::GrantKeepsFence, "a grant does not raise the fence", "lock::every_grant_has_a_higher_fence"),
    saboteur(Bug::PurgeResetsFence, "a purge takes the fence back", "lock::a_purge_never_takes_the_fence_back"),
    saboteur(Bug::LockWithoutWork, "the lock of an empty queue is granted", "lock::an_entity_with_nothing_to_do_is_not_granted"),
    saboteur(Bug::LockForgetsSameNonce, "a repeated request is refused by its own lease", "lock::the_same_nonce_gets_the_same_grant"),
    saboteur(Bug::NonceForgottenOnRelease, "a late request locks for nobody", "lock::a_released_nonce_is_not_granted_again"),
    saboteur(Bug::PauseIgnored, "a pause is ignored", "lock::a_paused_entity_is_not_granted"),
    saboteur(Bug::WaitForgotten, "a wait is ignored", "lock::a_waiting_entity_is_granted_when_its_time_has_come"),
    saboteur(Bug::BatchLimitIgnored, "the batch limit is ignored", "poison::the_batch_limit_of_a_commit_is_kept"),
    saboteur(Bug::MaxBatchIgnored, "the request's limit is ignored", "lock::no_more_is_handed_out_than_was_asked_for"),
    saboteur(Bug::ExtendForgotten, "a heartbeat is answered and not stored", "lock::an_extended_lease_is_not_taken_over"),
    saboteur(Bug::ExtendIgnoresNonce, "anybody's heartbeat extends", "lock::only_the_holder_extends"),
    saboteur(Bug::ExtendComparesFence, "a heartbeat compares the fence", "lock::a_commit_does_not_stop_an_extension_on_its_way"),
    saboteur(Bug::ExtendRevivesReleased, "a heartbeat locks what is free", "fault_extend_lock::late_duplicate"),
    saboteur(Bug::ReleaseIgnoresNonce, "anybody may release", "fault_release::stale_holder"),
    saboteur(Bug::ReleaseKeepsLock, "a release is answered and not stored", "lock::a_released_lock_is_free_at_once"),
    saboteur(Bug::ReleaseCounts, "a clean release uses up an attempt", "poison::a_clean_release_is_not_an_attempt"),
    saboteur(Bug::NotReadyCounted, "not being ready uses up an attempt", "poison::not_being_ready_is_not_an_attempt"),
    saboteur(Bug::AttemptAlwaysCharged, "every hand-out is charged", "poison::only_a_message_alone_is_charged"),
    saboteur(Bug::TakeoverKeepsBatch, "a takeover hands out the whole batch", "poison::a_takeover_hands_out_one_by_one"),
    saboteur(Bug::FailureMovesToTail, "a failed message is queued anew", "poison::a_failed_run_keeps_its_attempts_and_its_place"),
    saboteur(Bug::StateLost, "the state is not stored", "commit::state_and_acknowledgement_are_stored_together"),
    saboteur(Bug::StateRewritten, "states are parsed and written anew", "commit::states_survive_byte_for_byte"),
    saboteur(Bug::StateCut, "large values are cut", "commit::a_large_state_and_payload_survive"),
    saboteur(Bug::VersionStuck, "the version does not grow", "commit::every_commit_of_a_state_counts_its_version"),
    saboteur(Bug::StateVersionLost, "the version of the shape is lost", "commit::every_commit_of_a_state_counts_its_version"),
    saboteur(Bug::ExpiredHolderRefused, "a lease that ran out unnoticed cannot commit", "commit::a_lease_that_ran_out_unnoticed_may_still_commit"),
    saboteur(Bug::ReleasedMayCommit, "a released lock may commit", "commit::a_commit_after_its_release_is_refused"),
    saboteur(Bug::AckWholeBatch, "the acknowledgement covers the batch", "commit::a_prefix_can_be_acknowledged"),
    saboteur(Bug::AckIgnoresCount, "whatever ids are named are deleted", "commit::ids_that_were_not_handed_out_are_refused"),
    saboteur(Bug::ReleaseNextIgnored, "the wish to let go is ignored", "commit::a_holder_can_let_go_of_a_full_queue"),
    saboteur(Bug::CommitForgotten, "the last commit is not remembered", "fault_update_locked::reply_lost"),
    saboteur(Bug::CommitIgnoresPause, "a commit goes on over a pause", "lock::a_pause_during_a_run_lets_it_commit_and_then_stops"),
    saboteur(Bug::SendLost, "sends are dropped", "send::a_send_arrives_with_its_commit"),
    saboteur(Bug::SendTwice, "sends are made twice", "send::a_send_arrives_once"),
    saboteur(Bug::SendBounded, "a full target refuses sends", "send::a_send_passes_the_backlog_limit"),
    saboteur(Bug::UnsupportedSwallowed, "unknown effects are dropped in silence", "commit::an_effect_that_is_not_claimed_is_unsupported"),
    saboteur(Bug::DeadLetterRewritten, "dead letters are written anew", "poison::a_dead_letter_is_byte_equal_and_tells_why"),
    saboteur(Bug::DeadLetterLosesError, "dead letters do not tell why", "poison::a_dead_letter_is_byte_equal_and_tells_why"),
    saboteur(Bug::DeadLetterDropsPrefix, "a dead letter undoes the acknowledged prefix", "poison::a_dead_letter_comes_behind_an_acknowledged_prefix"),
    saboteur(Bug::RedriveAlwaysTail, "letters always join the tail", "poison::a_redriven_letter_is_moved_to_the_end_that_was_asked_for"),
    saboteur(Bug::RedriveHidesHandedOut, "looks for what is settled among the first of the queue only", "poison::letters_redriven_during_a_run_do_not_hide_what_it_settles"),
    saboteur(Bug::RedriveKeepsAttempts, "a letter inherits the attempts of who runs", "poison::a_letter_redriven_during_a_run_has_its_own_attempts"),
    saboteur(Bug::RedriveKeepsLetter, "letters are copied", "poison::a_redriven_letter_is_moved_to_the_end_that_was_asked_for"),
    saboteur(Bug::RedriveLost, "redriven letters vanish", "poison::a_redriven_letter_is_moved_to_the_end_that_was_asked_for"),
    saboteur(Bug::ResumeForgotten, "a resume does nothing", "poison::a_resumed_entity_runs_with_fresh_attempts"),
    saboteur(Bug::ResumeKeepsAttempts, "a resumed entity has no attempts left", "poison::a_resumed_entity_runs_with_fresh_attempts"),
    saboteur(Bug::DueIgnoresKinds, "due ignores the kinds", "due::a_queued_message_of_an_asked_kind_is_reported"),
    saboteur(Bug::DueReportsLocked, "due reports what is held", "due::a_held_entity_is_not_reported"),
    saboteur(Bug::DueForgetsExpiredLease, "due forgets dead holders", "due::an_expired_lease_is_reported"),
    saboteur(Bug::DueReportsWaiting, "due reports what waits", "due::a_waiting_or_paused_entity_is_not_reported"),
    saboteur(Bug::DueStopsAtBadKey, "a key that is none ends the page it stands on", "due::a_key_written_by_hand_hides_nobody"),
    saboteur(Bug::DueNextForgotten, "the next due moment is not told", "due::the_next_due_moment_of_a_delayed_message_is_told"),
    saboteur(Bug::DueCursorIgnored, "the cursor is ignored", "due::pages_hold_every_entity_once"),
    saboteur(Bug::DueClaims, "asking claims", "due::asking_what_is_due_changes_nothing"),
    saboteur(Bug::ReadSeesNothing, "an entity exists once it has a state", "inspect::a_read_tells_unknown_from_not_yet_handled"),
    saboteur(Bug::ListUnordered, "pages in no order", "inspect::entities_are_listed_in_the_order_of_their_keys"),
    saboteur(Bug::PeekUnordered, "peeks in no order", "inspect::a_peek_shows_the_head_of_the_queue"),
    saboteur(Bug::LocateBlind, "messages are not found", "inspect::a_message_can_be_located"),
    saboteur(Bug::LocateStale, "messages are looked for where they were put at first", "inspect::a_message_that_moved_is_located"),
    saboteur(Bug::WhyBlind, "reasons are not told", "inspect::why_tells_what_an_entity_waits_for"),
    saboteur(Bug::PurgeSparesQueue, "a purge forgets a table", "inspect::a_purge_leaves_nothing_to_be_seen"),
    saboteur(Bug::DropLeavesHalf, "a dropped call leaves half of it", "fault_enqueue::caller_dropped"),
    saboteur(Bug::DropWedges, "a dropped call wedges the queue", "fault_release::caller_dropped"),
    saboteur(Bug::DropWedgesReads, "a dropped read wedges the queue", "fault_due::caller_dropped"),
    saboteur(Bug::RowsLockedInSliceOrder, "calls that cross over each other are refused", "slice::opposite_orders_do_not_deadlock"),
    saboteur(Bug::LockReadBeforeWait, "the lease is judged before the row is locked", "race::many_who_try_the_lock_get_one_grant"),
    saboteur(Bug::ReleaseReadBeforeWait, "the queue is checked before the row is locked", "race::a_post_just_before_a_release_is_not_stranded"),
    saboteur(Bug::GrantLeakedOnDrop, "the grant of a dropped caller is leaked", "fault_try_lock::caller_dropped"),
    in_loop(Mistake::LostGrantForgotten, "the loop forgets a grant whose reply was lost", "lost::a_lost_reply_stores_a_post_once"),
    in_loop(Mistake::LateLeaseLeftToNobody, "the loop hands a lease back after a wait in line, and looks no more", "fairness::a_hot_entity_that_waited_too_long_in_line_goes_on"),
    in_loop(Mistake::SpentBudgetForOthers, "the loop forgets, with a spent budget, those who joined its run", "modes::a_post_that_joins_a_sweep_with_no_time_left_is_run"),
    in_loop(Mistake::SliceNeverSplit, "the loop passes the refusal of a slice on to all of it", "fairness::a_post_that_is_refused_fails_alone"),
    in_loop(Mistake::GatherForEver, "the loop waits with a full slice for as long as more calls come", "fairness::a_full_trip_leaves_while_more_posts_come"),
    in_loop(Mistake::LeftToNobody, "the loop looks no more for those who did not fit in its line", "fairness::more_entities_than_fit_in_line_are_all_run"),
    in_loop(Mistake::SlotToldTooLate, "the local slot is registered too late", "mailbox::a_post_while_the_last_commit_returns_is_not_stranded"),
];
