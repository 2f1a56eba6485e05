//! What PostgreSQL has against a binding, as the protocol writes it.

/// `ERROR <sqlstate> (<name>) <text>`. None if it is not about the binding.
pub(super) fn describe(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let code = error.code()?;
    // These say more of the server's state than of the binding.
    if ["08", "40", "53", "55", "57", "58", "XX"].contains(&code.get(..2)?) {
        return None;
    }
    Some(format!(
        "ERROR {code} ({}) {}",
        name(&code),
        error.message()
    ))
}

/// The condition's name, for those that a filter can bring about.
fn name(code: &str) -> &'static str {
    match code {
        "0A000" => "feature_not_supported",
        "22003" => "numeric_value_out_of_range",
        "22007" => "invalid_datetime_format",
        "22008" => "datetime_field_overflow",
        "22009" => "invalid_time_zone_displacement_value",
        "22012" => "division_by_zero",
        "22015" => "interval_field_overflow",
        "22021" => "character_not_in_repertoire",
        "22023" => "invalid_parameter_value",
        "22025" => "invalid_escape_sequence",
        "22026" => "string_data_length_mismatch",
        "2201B" => "invalid_regular_expression",
        "2200M" => "invalid_xml_document",
        "2200N" => "invalid_xml_content",
        "2202E" => "array_subscript_error",
        "22P02" => "invalid_text_representation",
        "22P03" => "invalid_binary_representation",
        "22P05" => "untranslatable_character",
        "23502" => "not_null_violation",
        "23514" => "check_violation",
        "42501" => "insufficient_privilege",
        "42601" => "syntax_error",
        "42602" => "invalid_name",
        "42703" => "undefined_column",
        "42704" => "undefined_object",
        "42725" => "ambiguous_function",
        "42804" => "datatype_mismatch",
        "42809" => "wrong_object_type",
        "42846" => "cannot_coerce",
        "42883" => "undefined_function",
        "42P01" => "undefined_table",
        "42P18" => "indeterminate_datatype",
        "42P22" => "indeterminate_collation",
        "54000" => "program_limit_exceeded",
        "54001" => "statement_too_complex",
        "P0001" => "raise_exception",
        other if other.starts_with("22") => "data_exception",
        other if other.starts_with("23") => "integrity_constraint_violation",
        other if other.starts_with("42") => "syntax_error_or_access_rule_violation",
        _ => "error",
    }
}
