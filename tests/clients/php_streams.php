<?php
// A legacy app on PHP's own streams (file_get_contents): one payment, no signing.
//
//   URL=<full target> BODY=<text> [HTTPS_PROXY=http://127.0.0.1:PORT] \
//     php [-d openssl.cafile=ca.pem] php_streams.php
//
// Prints one line of JSON (status, verdict, error, body) and exits 0 whenever an HTTP answer
// came, whatever its status; 1 otherwise. The trusted CA is php.ini's openssl.cafile or
// SSL_CERT_FILE. Streams read no proxy variable: the app hands HTTPS_PROXY to them, as apps do,
// together with request_fulluri, without which most proxies refuse http URLs. PHP keeps to that
// inside a tunnel as well, so behind CONNECT the target is in absolute form; and TLS is 1.2 there.
//
// A body that breaks off before its Content-Length is no error to PHP: the half that came is
// the answer.

$target = getenv('URL');
$body = getenv('BODY');
if ($target === false || $body === false) {
    fwrite(STDERR, "URL and BODY must be set\n");
    exit(2);
}

$options = [
    'method' => 'POST',
    'header' => 'Content-Type: application/json',
    'content' => $body,
    'follow_location' => 0,
    'ignore_errors' => true,
    'timeout' => 30,
];
$proxy = getenv('HTTPS_PROXY');
if ($proxy !== false) {
    $options['proxy'] = preg_replace('#^http://#', 'tcp://', rtrim($proxy, '/'));
    $options['request_fulluri'] = true;
}

$answer = file_get_contents($target, false, stream_context_create(['http' => $options]));
if ($answer === false) {
    fwrite(STDERR, "no answer\n");
    exit(1);
}
$status = null;
$headers = [];
foreach ($http_response_header as $line) {
    if (preg_match('#^HTTP/\S+ (\d+)#', $line, $match)) {
        $status = (int) $match[1];
    } else {
        [$name, $value] = explode(':', $line, 2);
        $headers[strtolower($name)] = trim($value);
    }
}
echo json_encode([
    'status' => $status,
    'verdict' => $headers['countersign-verdict'] ?? null,
    'error' => $headers['countersign-error'] ?? null,
    'body' => $answer,
], JSON_INVALID_UTF8_SUBSTITUTE), "\n";
