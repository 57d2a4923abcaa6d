{{/*
How single settings are written: each template takes a text and says what is wrong with it, in the words of
`countersign inject`, or nothing. The names are those of annotations, see countersign.settings.forms. Refuses what YAML would take for
another number, such as 015001; takes IPv6 networks with bits behind their length, which only the command can compute.
*/}}

{{- define "countersign.value.switch" -}}
{{- include "countersign.value.choice" (list . "enabled" "disabled") -}}
{{- end }}

{{- define "countersign.value.wayIn" -}}
{{- include "countersign.value.choice" (list . "none" "env" "hostAliases" "redirect") -}}
{{- end }}

{{- define "countersign.value.kind" -}}
{{- include "countersign.value.choice" (list . "native" "classic") -}}
{{- end }}

{{- define "countersign.value.pullPolicy" -}}
{{- include "countersign.value.choice" (list . "Always" "IfNotPresent" "Never") -}}
{{- end }}

{{/* A list: the text, and the words it may be. */}}
{{- define "countersign.value.choice" -}}
{{- if not (has (first .) (rest .)) -}}
{{- printf "%q is none of %s" (first .) (rest . | join ", ") -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.object" -}}
{{- if or (gt (len .) 253) (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" .)) -}}
{{- printf "%q is no name of an object; it has lower case letters, digits, - and ." . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.container" -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" .) -}}
{{- printf "%q is no name of a container; it has lower case letters, digits and -" . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.clientId" -}}
{{- if not (regexMatch "^[!-+/-~-]+$" .) -}}
{{- printf "%q: the client id holds a character other than visible ASCII without '.' and ','" . -}}
{{- else if gt (len .) 128 -}}
{{- printf "%q: the client id is longer than 128 characters" . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.keyVersion" -}}
{{- $digits := regexReplaceAll "^0+" . "" -}}
{{- if or (not (regexMatch "^[0-9]+$" .)) (gt (len $digits) 10) (gt (int64 $digits) 4294967295) -}}
{{- printf "%q: the key version is not a decimal number of at most 32 bits" . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.file" -}}
{{- if or (gt (len .) 253) (not (regexMatch "^\\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$" .)) -}}
{{- printf "%q is no file of a Secret; its key is needed, such as partner.pem" . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.port" -}}
{{- if or (not (regexMatch "^[1-9][0-9]{0,4}$" .)) (gt (int .) 65535) -}}
{{- printf "%q is no port from 1 to 65535" . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.ownPort" -}}
{{- $wrong := include "countersign.value.port" . -}}
{{- if $wrong -}}
{{- $wrong -}}
{{- else if lt (int .) 1024 -}}
{{- printf "%q needs a privilege; take a port from 1024 to 65535" . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.uid" -}}
{{- if or (not (regexMatch "^[1-9][0-9]{0,9}$" .)) (gt (int64 .) 2147483647) -}}
{{- printf "%q is no number of a user but root, from 1 to 2147483647" . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.host" -}}
{{- if or (gt (len .) 253) (not (regexMatch "^[-a-z0-9]{1,63}(\\.[-a-z0-9]{1,63})*$" .)) (regexMatch (include "countersign.value.ipv4" .) .) -}}
{{- printf "%q is no host name in lower case, such as open-na.alipayplus.com" . -}}
{{- end -}}
{{- end }}

{{/* A URL of a host, without a path. */}}
{{- define "countersign.value.origin" -}}
{{- $behind := regexReplaceAll "^https?://" . "" -}}
{{- $authority := regexFind "^[^/?#]*" $behind -}}
{{- $port := regexFind ":[^:\\]]*$" $authority -}}
{{- $host := trimSuffix $port $authority -}}
{{- $plain := include "countersign.value.plain" . -}}
{{- if $plain -}}
{{- $plain -}}
{{- else if eq $behind . -}}
{{- printf "%q must begin with https:// or http://" . -}}
{{- else if not $authority -}}
{{- printf "%q is no URL; write it like https://host" . -}}
{{- else if contains "@" $authority -}}
no user name or password may stand before the host
{{- else if not (has (trimPrefix $authority $behind) (list "" "/")) -}}
{{- printf "%q must be scheme, host and port only, like https://host:443" . -}}
{{- else if and $port (include "countersign.value.port" (trimPrefix ":" $port)) -}}
{{- printf "%q has no valid port (1 to 65535)" $authority -}}
{{- else if not (or (regexMatch "^\\[[0-9a-fA-F:.]+\\]$" $host) (regexMatch "^[-_a-zA-Z0-9]{1,63}(\\.[-_a-zA-Z0-9]{1,63})*\\.?$" $host)) -}}
{{- printf "%q is no host name or IP address" $host -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.app" -}}
{{- if regexMatch "^[0-9]+$" . -}}
{{- include "countersign.value.port" . -}}
{{- else if not (contains "://" .) -}}
{{- printf "%q is neither a port nor a URL; write it like 8080 or http://127.0.0.1:8080" . -}}
{{- else -}}
{{- include "countersign.value.origin" . -}}
{{- end -}}
{{- end }}

{{/* What is between commas: a list of the text and the form of each. The first that is wrong is told. */}}
{{- define "countersign.value.list" -}}
{{- $text := first . -}}
{{- $form := last . -}}
{{- $wrong := "" -}}
{{- $seen := list -}}
{{- range $item := splitList "," $text -}}
{{- $item = trim $item -}}
{{- if $wrong -}}
{{- else if not $item -}}
{{- $wrong = printf "%q has nothing between two commas or at an end" $text -}}
{{- else if has $item $seen -}}
{{- $wrong = printf "%q is named twice" $item -}}
{{- else -}}
{{- $seen = append $seen $item -}}
{{- $wrong = include (printf "countersign.value.%s" $form) $item -}}
{{- end -}}
{{- end -}}
{{- $wrong -}}
{{- end }}

{{- define "countersign.value.hosts" -}}
{{- include "countersign.value.list" (list . "host") -}}
{{- end }}

{{- define "countersign.value.ports" -}}
{{- include "countersign.value.list" (list . "port") -}}
{{- end }}

{{- define "countersign.value.containers" -}}
{{- include "countersign.value.list" (list . "container") -}}
{{- end }}

{{- define "countersign.value.networks" -}}
{{- include "countersign.value.list" (list . "exempt") -}}
{{- end }}

{{/* What redirect rules leave alone. */}}
{{- define "countersign.value.exempt" -}}
{{- $wrong := include "countersign.value.network" . -}}
{{- if $wrong -}}
{{- $wrong -}}
{{- else if hasSuffix "/0" . -}}
{{- printf "%q is every address: nothing would come to the sidecar, and all would go out unsigned; name the networks that are meant" . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.noProxy" -}}
{{- include "countersign.value.list" (list . "past") -}}
{{- end }}

{{/* An entry of NO_PROXY. */}}
{{- define "countersign.value.past" -}}
{{- if and (include "countersign.value.network" .) (include "countersign.value.host" (trimPrefix "." .)) -}}
{{- printf "%q is neither a host name in lower case nor a network; write it like .corp.example or 10.0.0.0/8" . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.ipv4" -}}
{{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])" -}}
{{- printf "^%s\\.%s\\.%s\\.%s$" $byte $byte $byte $byte -}}
{{- end }}

{{- define "countersign.value.network" -}}
{{- $address := splitList "/" . | first -}}
{{- $length := trimPrefix $address . -}}
{{- $four := regexMatch (include "countersign.value.ipv4" .) $address -}}
{{- $six := regexMatch "^([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$" $address -}}
{{- $group := "([0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4})*)?" -}}
{{- if and (regexMatch (printf "^%s::%s$" $group $group) $address) (lt (regexFindAll "[0-9a-fA-F]+" $address -1 | len) 8) -}}
{{- $six = true -}}
{{- end -}}
{{- if not (or (and $four (regexMatch "^(/(3[0-2]|[12]?[0-9]))?$" $length)) (and $six (regexMatch "^(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?$" $length))) -}}
{{- printf "%q is no network; write it like 10.0.0.0/8 or fd00::/8" . -}}
{{- else if and $four $length -}}
{{- $value := 0 -}}
{{- range $byte := splitList "." $address -}}
{{- $value = add (mul $value 256) (int $byte) -}}
{{- end -}}
{{- $size := 1 -}}
{{- range until (sub 32 (trimPrefix "/" $length | int) | int) -}}
{{- $size = mul $size 2 -}}
{{- end -}}
{{- if mod $value $size -}}
{{- $meant := sub $value (mod $value $size) -}}
{{- printf "%q has bits set behind its length; the network is %d.%d.%d.%d%s" . (div $meant 16777216) (mod (div $meant 65536) 256) (mod (div $meant 256) 256) (mod $meant 256) $length -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.image" -}}
{{- if not (regexMatch "^[-a-zA-Z0-9._/:@+]+$" .) -}}
{{- printf "%q is no image; write it like countersign:0.1.0" . -}}
{{- end -}}
{{- end }}

{{- define "countersign.value.quantity" -}}
{{- if not (or (eq . "none") (and (regexMatch "^([0-9]+\\.?[0-9]*|\\.[0-9]+)(m|k|M|G|Ki|Mi|Gi)?$" .) (regexMatch "[1-9]" .))) -}}
{{- printf "%q is no quantity; write it like 250m, 1 or 64Mi, or none" . -}}
{{- end -}}
{{- end }}

{{/* Visible ASCII without what Kubernetes would expand. */}}
{{- define "countersign.value.plain" -}}
{{- if not (regexMatch "^[!-#%-~]+$" .) -}}
{{- printf "%q has a space, a $ or something that is no ASCII in it" . -}}
{{- end -}}
{{- end }}
