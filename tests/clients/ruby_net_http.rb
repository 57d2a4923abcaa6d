# A legacy app on Ruby's Net::HTTP: one payment, no signing.
#
#   URL=<full target> BODY=<text> [http_proxy=http://127.0.0.1:PORT] [SSL_CERT_FILE=ca.pem] \
#     ruby ruby_net_http.rb
#
# Prints one line of JSON (status, verdict, error, body) and exits 0 whenever an HTTP answer
# came, whatever its status; 1 otherwise. For https URLs, too, Net::HTTP reads the proxy from
# http_proxy (or HTTP_PROXY) and never from https_proxy, and it bypasses the proxy for names that
# resolve to 127.* or ::1. The trusted CA comes from SSL_CERT_FILE.
#
# A body that breaks off before its Content-Length is no error to Net::HTTP: the half that came
# is the answer.

require "json"
require "net/http"

abort "URL and BODY must be set" unless ENV["URL"] && ENV["BODY"]

target = URI(ENV["URL"])
request = Net::HTTP::Post.new(target, "Content-Type" => "application/json")
request.body = ENV["BODY"]

begin
  answer = Net::HTTP.start(target.host, target.port, use_ssl: target.scheme == "https",
                           open_timeout: 30, read_timeout: 30) { |http| http.request(request) }
rescue StandardError => failure
  warn "no answer: #{failure.class}: #{failure.message}"
  exit 1
end

puts JSON.generate(
  status: answer.code.to_i,
  verdict: answer["countersign-verdict"],
  error: answer["countersign-error"],
  body: answer.body.to_s.dup.force_encoding("UTF-8").scrub
)
