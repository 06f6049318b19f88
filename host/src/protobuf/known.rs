//! Files that schemas import and nobody registers: Confluent's clients and registry have them
//! built in, as compilers have Google's. Only what bytes depend on is here.

/// The text of a file that everybody knows.
pub(super) fn text(name: &str) -> Option<String> {
    let (package, text) = match name {
        "confluent/meta.proto" => ("confluent", META),
        "confluent/type/decimal.proto" => (
            "confluent.type",
            "message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }",
        ),
        "confluent/type/variant.proto" => (
            "confluent.type",
            "message Variant { bytes metadata = 1; bytes value = 2; }",
        ),
        _ => (
            "google.type",
            google_type(name.strip_prefix("google/type/")?)?,
        ),
    };
    Some(format!("syntax = \"proto3\"; package {package}; {text}"))
}

/// Notes on schemas, which are options.
const META: &str = r#"
import "google/protobuf/descriptor.proto";
message Rule { string name = 1; string doc = 2; string expr = 3; string sql = 4; }
message Meta {
  string doc = 1;
  map<string, string> params = 2;
  repeated string tags = 3;
  repeated Rule rules = 4;
}
extend google.protobuf.FileOptions { Meta file_meta = 1088; }
extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }
"#;

fn google_type(file: &str) -> Option<&'static str> {
    Some(match file {
        "calendar_period.proto" => {
            "enum CalendarPeriod { CALENDAR_PERIOD_UNSPECIFIED = 0; DAY = 1; WEEK = 2; \
             FORTNIGHT = 3; MONTH = 4; QUARTER = 5; HALF = 6; YEAR = 7; }"
        }
        "color.proto" => {
            "import \"google/protobuf/wrappers.proto\"; message Color { float red = 1; float \
             green = 2; float blue = 3; google.protobuf.FloatValue alpha = 4; }"
        }
        "date.proto" => "message Date { int32 year = 1; int32 month = 2; int32 day = 3; }",
        "datetime.proto" => {
            "import \"google/protobuf/duration.proto\"; message DateTime { int32 year = 1; \
             int32 month = 2; int32 day = 3; int32 hours = 4; int32 minutes = 5; int32 seconds \
             = 6; int32 nanos = 7; oneof time_offset { google.protobuf.Duration utc_offset = \
             8; TimeZone time_zone = 9; } } message TimeZone { string id = 1; string version = \
             2; }"
        }
        "dayofweek.proto" => {
            "enum DayOfWeek { DAY_OF_WEEK_UNSPECIFIED = 0; MONDAY = 1; TUESDAY = 2; WEDNESDAY \
             = 3; THURSDAY = 4; FRIDAY = 5; SATURDAY = 6; SUNDAY = 7; }"
        }
        "decimal.proto" => "message Decimal { string value = 1; }",
        "expr.proto" => {
            "message Expr { string expression = 1; string title = 2; string description = 3; \
             string location = 4; }"
        }
        "fraction.proto" => "message Fraction { int64 numerator = 1; int64 denominator = 2; }",
        "interval.proto" => {
            "import \"google/protobuf/timestamp.proto\"; message Interval { \
             google.protobuf.Timestamp start_time = 1; google.protobuf.Timestamp end_time = 2; \
             }"
        }
        "latlng.proto" => "message LatLng { double latitude = 1; double longitude = 2; }",
        "money.proto" => {
            "message Money { string currency_code = 1; int64 units = 2; int32 nanos = 3; }"
        }
        "month.proto" => {
            "enum Month { MONTH_UNSPECIFIED = 0; JANUARY = 1; FEBRUARY = 2; MARCH = 3; APRIL = \
             4; MAY = 5; JUNE = 6; JULY = 7; AUGUST = 8; SEPTEMBER = 9; OCTOBER = 10; NOVEMBER \
             = 11; DECEMBER = 12; }"
        }
        "phone_number.proto" => {
            "message PhoneNumber { message ShortCode { string region_code = 1; string number = \
             2; } oneof kind { string e164_number = 1; ShortCode short_code = 2; } string \
             extension = 3; }"
        }
        "postal_address.proto" => {
            "message PostalAddress { int32 revision = 1; string region_code = 2; string \
             language_code = 3; string postal_code = 4; string sorting_code = 5; string \
             administrative_area = 6; string locality = 7; string sublocality = 8; repeated \
             string address_lines = 9; repeated string recipients = 10; string organization = \
             11; }"
        }
        "quaternion.proto" => {
            "message Quaternion { double x = 1; double y = 2; double z = 3; double w = 4; }"
        }
        "timeofday.proto" => {
            "message TimeOfDay { int32 hours = 1; int32 minutes = 2; int32 seconds = 3; int32 \
             nanos = 4; }"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::protobuf::ProtoFile;

    #[test]
    fn each_file_is_read() {
        let types = [
            ("confluent/type/decimal", "confluent.type.Decimal"),
            ("confluent/type/variant", "confluent.type.Variant"),
            ("google/type/calendar_period", "google.type.CalendarPeriod"),
            ("google/type/color", "google.type.Color"),
            ("google/type/date", "google.type.Date"),
            ("google/type/datetime", "google.type.DateTime"),
            ("google/type/dayofweek", "google.type.DayOfWeek"),
            ("google/type/decimal", "google.type.Decimal"),
            ("google/type/expr", "google.type.Expr"),
            ("google/type/fraction", "google.type.Fraction"),
            ("google/type/interval", "google.type.Interval"),
            ("google/type/latlng", "google.type.LatLng"),
            ("google/type/money", "google.type.Money"),
            ("google/type/month", "google.type.Month"),
            ("google/type/phone_number", "google.type.PhoneNumber"),
            ("google/type/postal_address", "google.type.PostalAddress"),
            ("google/type/quaternion", "google.type.Quaternion"),
            ("google/type/timeofday", "google.type.TimeOfDay"),
        ];
        let imports = types.map(|(file, _)| format!("import \"{file}.proto\";"));
        let fields = types.iter().zip(1..).map(|((_, name), number)| {
            format!("{name} f{number} = {number} [(confluent.field_meta).tags = \"t\"];")
        });
        let text = format!(
            "syntax = \"proto3\"; import \"confluent/meta.proto\"; {} \
             message M {{ option (confluent.message_meta).doc = \"all\"; {} }}",
            imports.concat(),
            fields.collect::<String>()
        );
        let file = ProtoFile::read(&text, &[]).expect("all are there");
        let message = file.message(None).expect("one message");
        assert_eq!(message.message().fields().count(), types.len());
    }

    #[test]
    fn what_somebody_has_registered_comes_first() {
        let own = "syntax = \"proto3\"; package google.type; message Date { string iso = 1; }";
        let text = "syntax = \"proto3\"; import \"google/type/date.proto\"; \
                    message M { google.type.Date d = 1; }";
        let references = [("google/type/date.proto".to_owned(), own.to_owned())];
        let file = ProtoFile::read(text, &references).expect("a schema");
        let date = file.message(Some("google.type.Date")).expect("a message");
        assert!(date.message().get_field_by_name("iso").is_some());
        let nothing = "syntax = \"proto3\"; import \"google/type/nothing.proto\";";
        assert!(ProtoFile::read(nothing, &[]).is_err());
    }
}
