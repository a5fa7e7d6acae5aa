package redact

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestCards(t *testing.T) {
	r := newRedactor(t, Config{Cards: true})
	cases := map[string]string{}
	// Test numbers that the networks and payment providers publish.
	for _, pan := range []string{
		"4111111111111111", "4012888888881881", "4222222222222", "4242424242424242", // Visa
		"5555555555554444", "5105105105105100", "2223003122003222", "2720990000000007", // Mastercard
		"378282246310005", "371449635398431", "341111111111111", // American Express
		"6200000000000005", "6205500000000000004", "8171999927660000", // UnionPay
		"3530111333300000", "3566002020360505", // JCB
		"30569309025904", "38520000023237", "36227206271667", // Diners Club
		"6011111111111117", "6011000990139424", "6500000000000002", // Discover
		"2200000000000004", "2204120100000009", // Mir
	} {
		if !isLuhn(digitsOf(pan)) {
			pan = withCheckDigit(pan)
		}
		cases[pan] = "[redacted:card:" + pan[len(pan)-4:] + "]"
	}
	expect(t, r, cases)
	expect(t, r, map[string]string{
		"4111 1111 1111 1111":       "[redacted:card:1111]",
		"4111-1111-1111-1111":       "[redacted:card:1111]",
		"3782 822463 10005":         "[redacted:card:0005]",
		"3056-930902-5904":          "[redacted:card:5904]",
		"6205 5000 0000 0000 004":   "[redacted:card:0004]",
		"620550 0000000000004":      "[redacted:card:0004]",
		"4222 222 222 222":          "[redacted:card:2222]",
		"pan=4111111111111111.":     "pan=[redacted:card:1111].",
		"pan...4111111111111111":    "pan...[redacted:card:1111]",
		"卡号4111111111111111已":       "卡号[redacted:card:1111]已",
		"<a>4111111111111111</a>":   "<a>[redacted:card:1111]</a>",
		"pan%3D4111111111111111%26": "pan%3D[redacted:card:1111]%26",
		"x%204111111111111111":      "x%20[redacted:card:1111]",
		"12:00:00 4111111111111111": "12:00:00 [redacted:card:1111]",
		"1234 4111 1111 1111 1111":  "1234 [redacted:card:1111]",
		"4111 1111 1111 1111 123":   "[redacted:card:1111] 123",
		"order-4111111111111111-2":  "order-[redacted:card:1111]-2",
	})
}

func TestNotCards(t *testing.T) {
	expectUnchanged(t, newRedactor(t, Config{Cards: true}),
		"", "1", "4111111111111112", "4111 1111 1111 1112",
		"1760000000000", "1760000000000000", "1760000000000000000",
		"123e4567-e89b-12d3-a456-426614174000", "41111111-1111-1111-1111-411111111111",
		"4bf92f3577b34da6a3ce929d0e0e4736", "00-41111111111111114111111111111111-00f067aa0ba902b7-01",
		"d41d8cd98f00b204e9800998ecf8427e", "a4111111111111111", "4111111111111111f", "sha4111111111111111",
		"0.4111111111111111", "-0.4111111111111111", ".4111111111111111", "4111111111111111.25",
		"41111111111111111", "4111  1111  1111  1111", "4111 1111-1111 1111", "4111,1111,1111,1111",
		"41111 111 1111 1111", "9111111111111111", "411111111111116", "37828224631000",
		"2026-10-01 12:00:00.123456", "192.168.100.200 10.0.0.1", "2026-10-01T12:00:00+08:00",
		"4111 1111 1111 1111a", "x4111 1111 1111 1111", strings.Repeat("4111111111111111", 4),
	)
}

func TestEpochMillisecondsAreNeverCards(t *testing.T) {
	r := newRedactor(t, Config{Cards: true})
	from := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	to := time.Date(2041, 1, 1, 0, 0, 0, 0, time.UTC)
	for at := from; at.Before(to); at = at.Add(31*time.Hour + 1234567*time.Microsecond) {
		expectUnchanged(t, r, fmt.Sprint(at.UnixMilli()))
		// Microseconds begin with the 2200 of Mir from September 2039.
		if at.Year() < 2039 {
			expectUnchanged(t, r, fmt.Sprint(at.UnixMicro()), fmt.Sprint(at.UnixNano()))
		}
	}
}

func TestResidentIDs(t *testing.T) {
	r := newRedactor(t, Config{ResidentIDs: true})
	// The numbers of the examples of GB 11643-1999.
	expect(t, r, map[string]string{
		"11010519491231002X":     "[redacted:resident_id]",
		"11010519491231002x":     "[redacted:resident_id]",
		"440524188001010014":     "440524188001010014", // Born in 1880, before 1900.
		"id=11010519491231002X;": "id=[redacted:resident_id];",
		"身份证11010519491231002X，": "身份证[redacted:resident_id]，",
	})
	expectUnchanged(t, r,
		"110105194912310021", "11010519491231002XY", "111010519491231002X", "a11010519491231002X",
		"0.11010519491231002X", "11010519491231002", "11010519491231002X1", "110105-19491231-002X")
	for _, wrong := range []string{"990105194912310", "110105194902300", "110105194913010", "110105194900100", "110105299912310"} {
		expectUnchanged(t, r, withResidentCheck(wrong+"02"))
	}
	for _, right := range []string{"62010220000229001", "65010119991231999", "83000019800101123"} {
		expect(t, r, map[string]string{withResidentCheck(right): "[redacted:resident_id]"})
	}
	tomorrow := time.Now().AddDate(0, 0, 3).Format("20060102")
	expectUnchanged(t, r, withResidentCheck("110105"+tomorrow+"002"))
}

func TestPhones(t *testing.T) {
	r := newRedactor(t, Config{Phones: true})
	expect(t, r, map[string]string{
		"13812345678":       "[redacted:phone]",
		"19912345678":       "[redacted:phone]",
		"+8613812345678":    "[redacted:phone]",
		"+86 13812345678":   "[redacted:phone]",
		"+86-13812345678":   "[redacted:phone]",
		"008613812345678":   "[redacted:phone]",
		"0086 13812345678":  "[redacted:phone]",
		"86-13812345678":    "[redacted:phone]",
		"186-13812345678":   "186-[redacted:phone]",
		"+442079460958":     "[redacted:phone]",
		"tel:+12025550123;": "tel:[redacted:phone];",
		"手机13812345678号":    "手机[redacted:phone]号",
	})
	expectUnchanged(t, r, "12812345678", "1381234567", "138123456789", "a13812345678", "13812345678b",
		"0.13812345678", "13812345678.5", "+1234567", "+1234567890123456", "+0123456789", "+123456789a",
		"2026-10-01T12:00:00+0800", "1760000000", "1760000000000")
}

func digitsOf(text string) []byte {
	digits := []byte(text)
	for i := range digits {
		digits[i] -= '0'
	}
	return digits
}

// withCheckDigit replaces the last digit by the one that makes a card valid.
func withCheckDigit(pan string) string {
	for c := '0'; c <= '9'; c++ {
		if valid := pan[:len(pan)-1] + string(c); isLuhn(digitsOf(valid)) {
			return valid
		}
	}
	panic("no check digit fits")
}

// withResidentCheck appends the check character, computed as ISO 7064 defines
// it rather than by the weights: the value of all is 1 modulo 11.
func withResidentCheck(id string) string {
	value := 0
	for _, c := range id {
		value = (value*2 + int(c-'0')*2) % 11
	}
	return id + string("10X98765432"[value])
}
