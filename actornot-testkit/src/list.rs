/// The one list of behaviours: theme, sentence, guarantee. Hands it to the macro that is named.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_behaviour {
    ($($callback:ident)::+ $(, $($argument:tt)*)?) => {
        $($callback)::+! {
            $([$($argument)*])?
            enqueue {
                an_accepted_message_is_in_the_database: G1,
                messages_are_handed_out_in_the_order_of_their_posts: G2,
                payloads_survive_byte_for_byte: G1,
                headers_travel_with_their_message: G1,
                keys_are_told_apart_byte_for_byte: G3,
                ids_are_told_apart_byte_for_byte: G7,
                an_id_is_accepted_once: G7,
                the_first_payload_of_an_id_wins: G7,
                an_id_is_remembered_after_it_was_handled: G7,
                an_id_is_forgotten_after_its_retention: G7,
                ids_of_different_entities_never_meet: G7,
                an_id_is_remembered_over_a_purge: G7,
                a_full_backlog_refuses_what_does_not_fit: G9,
                a_duplicate_is_told_even_when_the_backlog_is_full: G7,
                a_delayed_message_waits_for_its_time: G2,
                a_delayed_message_joins_the_tail_when_it_falls_due: G2,
                thousands_that_fall_due_at_once_keep_their_order: G2,
                the_lock_of_the_same_trip_sees_the_message: G5,
                a_post_that_gets_the_lock_is_handed_what_was_queued_before: G2,
                a_lock_that_is_held_is_not_granted_to_a_post: G3,
                a_post_does_not_shorten_a_wait: G2,
                an_emptied_queue_keeps_its_order: G2,
            }
            lock {
                a_held_lock_is_not_granted_again: G3,
                an_expired_lease_can_be_taken_over: G5,
                every_grant_has_a_higher_fence: G3,
                a_purge_never_takes_the_fence_back: G3,
                an_entity_with_nothing_to_do_is_not_granted: G9,
                the_same_nonce_gets_the_same_grant: G4,
                a_released_nonce_is_not_granted_again: G5,
                different_entities_are_held_at_once: G8,
                a_paused_entity_is_not_granted: G6,
                a_pause_during_a_run_lets_it_commit_and_then_stops: G6,
                a_waiting_entity_is_granted_when_its_time_has_come: G6,
                no_more_is_handed_out_than_was_asked_for: G9,
                an_extended_lease_is_not_taken_over: G5,
                only_the_holder_extends: G3,
                a_commit_does_not_stop_an_extension_on_its_way: G3,
                a_released_lock_is_free_at_once: G5,
            }
            commit {
                state_and_acknowledgement_are_stored_together: G4,
                states_survive_byte_for_byte: G1,
                every_commit_of_a_state_counts_its_version: G4,
                a_holder_that_was_taken_over_changes_nothing: G3,
                a_commit_under_an_older_fence_changes_nothing: G3,
                an_earlier_commit_that_arrives_late_changes_nothing: G4,
                a_lease_that_ran_out_unnoticed_may_still_commit: G4,
                a_commit_after_its_release_is_refused: G3,
                a_prefix_can_be_acknowledged: G4,
                ids_that_were_not_handed_out_are_refused: G4,
                a_refused_commit_acknowledges_nothing: G4,
                posts_during_a_run_survive_its_commit: G1,
                what_came_before_the_batch_meanwhile_is_not_acknowledged_with_it: G4,
                a_holder_looks_at_the_queue_before_it_lets_go: G5,
                a_holder_can_let_go_of_a_full_queue: G5,
                an_effect_that_is_not_claimed_is_unsupported: G4,
                a_large_state_and_payload_survive: G1,
            }
            send {
                a_send_arrives_with_its_commit: G4,
                a_send_arrives_once: G4,
                sends_keep_their_order: G2,
                a_dropped_commit_makes_all_of_its_sends_or_none: G4,
                a_send_passes_the_backlog_limit: G4,
                two_that_send_to_each_other_both_commit: G8,
            }
            poison {
                an_attempt_is_counted_before_it_is_run: G6,
                only_a_message_alone_is_charged: G6,
                a_takeover_hands_out_one_by_one: G6,
                a_clean_release_is_not_an_attempt: G6,
                not_being_ready_is_not_an_attempt: G6,
                a_failed_run_keeps_its_attempts_and_its_place: G6,
                the_batch_limit_of_a_commit_is_kept: G6,
                a_dead_letter_is_byte_equal_and_tells_why: G6,
                a_dead_letter_comes_behind_an_acknowledged_prefix: G6,
                a_redriven_letter_is_moved_to_the_end_that_was_asked_for: G6,
                a_letter_redriven_during_a_run_has_its_own_attempts: G6,
                a_redriven_letter_stands_where_it_was_put_beside_what_fell_due_before: G2,
                letters_redriven_during_a_run_do_not_hide_what_it_settles: G6,
                a_resumed_entity_runs_with_fresh_attempts: G6,
            }
            slice {
                answers_come_in_the_order_of_the_slice: G8,
                one_that_fails_does_not_fail_its_neighbours: G8,
                opposite_orders_do_not_deadlock: G8,
                a_full_batch_of_the_largest_payloads_is_handed_out: G1,
                a_slice_of_the_largest_states_is_applied: G8,
            }
            due {
                a_queued_message_of_an_asked_kind_is_reported: G5,
                a_held_entity_is_not_reported: G5,
                an_expired_lease_is_reported: G5,
                a_waiting_or_paused_entity_is_not_reported: G5,
                a_key_written_by_hand_hides_nobody: G5,
                the_next_due_moment_of_a_delayed_message_is_told: G5,
                pages_hold_every_entity_once: G5,
                asking_what_is_due_changes_nothing: G5,
            }
            inspect {
                a_read_tells_unknown_from_not_yet_handled: G1,
                entities_are_listed_in_the_order_of_their_keys: G9,
                a_peek_shows_the_head_of_the_queue: G2,
                a_peek_shows_as_many_due_messages_as_it_is_asked_for: G6,
                a_message_can_be_located: G6,
                a_message_that_moved_is_located: G6,
                why_tells_what_an_entity_waits_for: G6,
                a_purge_leaves_nothing_to_be_seen: G6,
                a_purge_amid_posts_strands_nothing: G5,
            }
            walk {
                a_queue_is_what_its_calls_make_of_it: G2,
            }
            race {
                a_post_just_before_a_release_is_not_stranded: G5,
                a_post_just_after_a_release_is_not_stranded: G5,
                many_who_try_the_lock_get_one_grant: G3,
                slices_that_meet_hand_each_message_to_one: G4,
                an_empty_namespace_is_opened_by_many_at_once: G1,
                posts_from_many_instances_are_all_kept: G1,
            }
            mailbox {
                a_post_is_run_and_its_state_committed: G4,
                posts_run_in_their_order_and_never_at_once: G2,
                what_is_posted_during_a_run_comes_next: G5,
                a_read_takes_no_lock: G8,
                an_id_posted_twice_is_run_once: G7,
                a_delayed_post_is_run_when_it_falls_due: G2,
                a_delay_that_is_set_during_a_sweep_is_not_forgotten: G5,
                what_is_over_a_limit_is_refused_by_name: G9,
                a_post_that_is_no_json_is_refused: G9,
                what_is_sent_is_run: G4,
                a_receipt_tells_what_became_of_its_message: G1,
                an_entity_that_is_not_ready_is_asked_again_in_time: G5,
                an_entity_that_is_never_quite_ready_does_not_spin: G9,
                a_quiet_mailbox_asks_nothing: G9,
                posts_that_wait_share_a_trip: G8,
                a_post_while_the_last_commit_returns_is_not_stranded: G5,
            }
            lost {
                a_lost_reply_stores_a_post_once: G4,
                a_lost_grant_is_found_again: G10,
                a_lost_reply_applies_a_commit_once: G4,
                a_database_that_is_away_for_a_moment_is_waited_for: G1,
                a_dropped_caller_leaves_nothing_behind: G10,
                a_lost_reply_does_not_make_a_post_its_own_duplicate: G7,
                a_post_that_may_be_stored_is_not_told_as_refused: G1,
                a_commit_that_finds_no_room_gives_its_lease_back: G6,
                closing_finds_a_grant_whose_reply_was_lost: G10,
            }
            fairness {
                a_stuck_handler_does_not_stop_others: G8,
                a_hot_entity_lets_others_through: G8,
                no_more_handlers_run_than_there_are_permits: G9,
                a_process_without_a_permit_leaves_the_lock_to_others: G8,
                a_hot_entity_that_waited_too_long_in_line_goes_on: G5,
                stuck_handlers_do_not_hide_others_from_a_sweep: G8,
                posts_that_cannot_be_served_do_not_hold_up_others: G8,
                a_full_trip_leaves_while_more_posts_come: G8,
                more_entities_than_fit_in_line_are_all_run: G9,
                a_post_that_is_refused_fails_alone: G8,
                a_message_that_is_refused_fails_alone: G8,
            }
            failing {
                a_failed_message_is_retried_in_its_place: G2,
                a_message_that_always_fails_is_buried_alone: G6,
                a_panic_is_its_messages_failure: G6,
                a_panic_while_it_is_decoded_is_a_messages_failure: G6,
                a_panic_in_ready_is_retried: G6,
                a_pause_behind_everything_is_not_the_next_messages: G6,
                a_buried_message_comes_back_by_redrive: G6,
                the_pause_policy_stops_the_entity: G6,
                the_block_policy_keeps_trying_in_order: G6,
                a_handler_can_pause_its_entity: G6,
                a_run_without_end_is_cancelled: G6,
                a_payload_that_does_not_decode_is_buried: G6,
                a_state_that_does_not_decode_is_kept: G6,
                a_state_over_its_limit_fails_its_message: G9,
            }
            dying {
                what_a_dead_process_left_is_run_by_a_sweep: G5,
                a_background_sweep_needs_no_post: G5,
                a_message_that_kills_its_process_is_given_up: G6,
                a_holder_that_was_taken_over_changes_nothing: G3,
                a_lost_lock_cancels_its_run: G3,
                a_long_run_keeps_its_lease: G3,
                closing_lets_running_batches_finish: G10,
                closing_hands_the_lease_of_a_stuck_run_back: G10,
                a_mailbox_dropped_without_close_leaves_no_lease: G10,
            }
            modes {
                an_inline_post_returns_when_its_work_is_done: G5,
                an_inline_post_waits_for_what_it_led_to: G5,
                an_inline_post_does_not_wait_for_strangers: G8,
                an_inline_post_starts_nothing_after_its_budget: G5,
                an_inline_post_is_not_left_by_anothers_budget: G5,
                a_front_end_only_enqueues: G5,
                a_sweep_runs_everything_that_is_due: G5,
                a_sweep_waits_for_what_it_led_to: G5,
                a_sweep_without_time_starts_nothing: G5,
                a_post_that_joins_a_sweep_with_no_time_left_is_run: G5,
                a_sweep_whose_time_ran_out_says_so: G5,
            }
            fault_enqueue {
                reply_lost: G4,
                caller_dropped: G10,
                crash_before: G1,
                crash_after: G5,
                stale_holder: G3,
                late_duplicate: G4,
            }
            fault_try_lock {
                reply_lost: G4,
                caller_dropped: G10,
                crash_before: G5,
                crash_after: G6,
                stale_holder: G3,
                late_duplicate: G5,
            }
            fault_update_locked {
                reply_lost: G4,
                caller_dropped: G10,
                crash_before: G4,
                crash_after: G4,
                stale_holder: G3,
                late_duplicate: G4,
            }
            fault_release {
                reply_lost: G4,
                caller_dropped: G10,
                crash_before: G5,
                crash_after: G5,
                stale_holder: G3,
                late_duplicate: G3,
            }
            fault_due {
                reply_lost: G4,
                caller_dropped: G10,
                crash_before: G5,
                crash_after: G5,
                stale_holder: G5,
                late_duplicate: G4,
            }
            fault_extend_lock {
                reply_lost: G4,
                caller_dropped: G10,
                crash_before: G5,
                crash_after: G5,
                stale_holder: G3,
                late_duplicate: G5,
            }
        }
    };
}

/// Expands the list of behaviours into real, named, parallel tests against a backend.
///
/// The argument is the path of a function, `async fn() -> impl Backend`, from the root of the test crate; every test
/// calls it for a backend of its own. Before it stands `real` for a database, or `simulated`, with tokio's clock paused,
/// for a queue that does no I/O. The test crate needs `tokio` with `macros` and `rt-multi-thread`; expand the macro at
/// its root.
///
/// ```ignore
/// async fn backend() -> MyBackend { MyBackend::fresh().await }
/// actornot_testkit::conformance!(real crate::backend);
/// ```
#[macro_export]
macro_rules! conformance {
    ($clock:ident $backend:path) => {
        $crate::for_each_behaviour!($crate::conformance_tests, $clock, $backend);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ([$clock:ident, $backend:path] $($theme:ident { $($name:ident: $guarantee:ident,)* })*) => {
        $(mod $theme {
            $($crate::conformance_test!($clock $backend, $theme $name);)*
        })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_test {
    (real $backend:path, $theme:ident $name:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::assert_holds(concat!(stringify!($theme), "::", stringify!($name)), $backend().await)
                .await;
        }
    };
    (simulated $backend:path, $theme:ident $name:ident) => {
        #[tokio::test(start_paused = true)]
        async fn $name() {
            $crate::assert_holds(concat!(stringify!($theme), "::", stringify!($name)), $backend().await)
                .await;
        }
    };
}
