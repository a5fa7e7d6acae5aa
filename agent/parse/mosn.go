package parse

import "bytes"

// mosn reads MOSN's default access log (types.DefaultAccessLogFormat): start time, two durations, bytes sent and
// received, protocol, status, duration, flag, status again, and the addresses upstream local, downstream local,
// downstream remote and upstream host. It has neither method nor path; the client is downstream remote.
func mosn(b []byte, f *Fields) bool {
	const start = "0000/00/00 00:00:00.000 "
	if !shaped(b, start) || len(b) == len(start) || !digit(b[len(start)]) {
		return false
	}
	var fields [12][]byte
	rest := b[len(start):]
	for i := range fields {
		field, after, ok := until(rest, ' ', 128)
		if !ok {
			if i < len(fields)-1 || len(rest) > 128 {
				return false
			}
			field, after = rest, nil
		}
		fields[i], rest = field, after
	}
	_, sent := decimal(fields[2])
	_, received := decimal(fields[3])
	status, ok := decimal(fields[5])
	if !sent || !received || !ok || status > 999 || !bytes.Equal(fields[5], fields[8]) || !duration(fields[0]) {
		return false
	}
	r := request{status: status, client: fields[11]}
	if c := bytes.LastIndexByte(r.client, ':'); c >= 0 {
		r.client = bytes.Trim(r.client[:c], "[]")
	}
	if !address(r.client) {
		r.client = nil
	}
	r.set(f)
	return true
}

// duration says whether b is a duration as Go prints it.
func duration(b []byte) bool { return len(b) >= 2 && digit(b[0]) && b[len(b)-1] == 's' }
