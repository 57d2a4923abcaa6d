<?php
// A legacy app on PHP's curl extension: one payment, no signing.
//
//   URL=<full target> BODY=<text> [HTTPS_PROXY=http://127.0.0.1:PORT] \
//     php [-d curl.cainfo=ca.pem] php_curl.php
//
// Prints one line of JSON (status, verdict, error, body) and exits 0 whenever a complete HTTP
// answer came, whatever its status; 1 otherwise. libcurl reads the proxy from HTTPS_PROXY by
// itself (lower case wins; for http URLs http_proxy counts in lower case only). The trusted CA is
// php.ini's curl.cainfo, or else openssl.cafile; SSL_CERT_FILE and CURL_CA_BUNDLE belong to the
// curl command and do not count.

$target = getenv('URL');
$body = getenv('BODY');
if ($target === false || $body === false) {
    fwrite(STDERR, "URL and BODY must be set\n");
    exit(2);
}

$headers = [];
$curl = curl_init($target);
curl_setopt_array($curl, [
    CURLOPT_POST => true,
    CURLOPT_POSTFIELDS => $body,
    CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
    CURLOPT_RETURNTRANSFER => true,
    CURLOPT_TIMEOUT => 30,
    // Those of the last answer: not of a 100, nor of a CONNECT.
    CURLOPT_HEADERFUNCTION => function ($curl, $line) use (&$headers) {
        if (str_starts_with($line, 'HTTP/')) {
            $headers = [];
        } elseif (str_contains($line, ':')) {
            [$name, $value] = explode(':', $line, 2);
            $headers[strtolower($name)] = trim($value);
        }
        return strlen($line);
    },
]);

$answer = curl_exec($curl);
if ($answer === false) {
    fwrite(STDERR, 'no answer: ' . curl_error($curl) . "\n");
    exit(1);
}
echo json_encode([
    'status' => curl_getinfo($curl, CURLINFO_RESPONSE_CODE),
    'verdict' => $headers['countersign-verdict'] ?? null,
    'error' => $headers['countersign-error'] ?? null,
    'body' => $answer,
], JSON_INVALID_UTF8_SUBSTITUTE), "\n";
