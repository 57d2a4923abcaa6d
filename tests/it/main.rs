//! What the sidecar promises, each promise a test; the modules are named by what they promise.
//!
//! Everything real: sockets, TLS, keys, clients. Ports are 0, time is held where it matters, nothing
//! sleeps.

#![allow(
    unreachable_pub,
    missing_debug_implementations,
    clippy::float_cmp,
    clippy::format_collect,
    clippy::duration_suboptimal_units,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod a_cluster_injects;
#[cfg(feature = "pkcs11")]
mod a_container_signs_with_a_token;
mod a_pod_serves;
mod a_thief_finds_little;
mod alerts_are_true;
mod alerts_see_the_first_failure;
mod annotations_are_checked;
mod annotations_are_documented;
mod answers_are_for_their_request;
mod answers_are_signed;
mod answers_are_verified;
mod arguments_are_not_repeated;
mod bad_certificates_are_explained;
mod bad_input_is_explained;
mod bad_reloads_are_explained;
#[cfg(feature = "pkcs11")]
mod bad_tokens_are_explained;
mod bad_ways_out_are_explained;
mod both_directions;
mod bytes_arrive_as_sent;
mod callers_are_verified;
mod charts_carry_the_sidecar;
mod charts_refuse_nonsense;
mod charts_render;
mod charts_say_what_inject_says;
mod charts_start;
mod clear_requests_pass;
mod client_certificates_are_checked;
mod clients_need_no_change;
mod drains_in_order;
mod every_address_is_reached;
#[cfg(feature = "pkcs11")]
mod every_query_finds_data;
mod exchanges_outlive_rotations;
mod http2_targets;
mod https_clients_need_no_change;
mod identities_are_chosen;
mod images_are_small_and_bare;
mod inject_writes_all_or_nothing;
mod injected_arguments_are_understood;
mod keys_are_reloaded;
mod keys_come_from_anywhere;
#[cfg(feature = "pkcs11")]
mod keys_in_tokens;
mod limits_hold_and_traffic_goes_on;
mod lingering_close;
mod log_output;
mod malformed_answers_are_refused;
mod malformed_requests_are_refused;
mod manifests_are_valid;
mod manifests_give_no_more_than_needed;
mod manifests_keep_their_meaning;
mod never_twice;
mod no_broken_network_calls_an_app_twice;
mod no_broken_network_pays_twice;
mod nothing_leaks;
mod nothing_takes_the_injector_down;
mod opened_by_us;
mod others_pass_untouched;
mod pods_get_the_sidecar;
mod pods_that_ask_are_shown;
mod pods_that_cannot_stay_as_they_are;
mod redirect_is_explained;
mod redirect_precedence;
mod redirect_rules;
mod redirected_apps_need_no_change;
mod retried_by_proxy;
mod rotation_through_links;
mod service_managers_are_told;
#[cfg(feature = "pkcs11")]
mod sidecars_sign_with_tokens;
mod storms_pass;
mod strangers_keep_nobody_out;
mod support;
mod the_binary_serves;
mod the_ca_is_kept;
mod the_composed_service_starts;
mod the_dashboard_is_sound;
mod the_ingress_certificate;
mod the_injector_answers;
mod the_injector_starts_and_ends;
mod the_injectors_certificate;
mod the_local_ca;
mod the_sandbox_calls;
mod the_sbom_names_what_is_linked;
mod the_unit_is_tight;
mod the_way_out;
mod the_world_changes;
mod through_a_proxy;
mod tls_is_looked_into;
#[cfg(feature = "pkcs11")]
mod tokens_come_and_go;
mod tunnels_pass_unread;
mod where_it_stands;
mod wrong_answers_are_told;
mod wrong_calls_are_refused;
