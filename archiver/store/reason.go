package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// Reason tells in a word why a call failed.
func Reason(err error) string {
	var remote interface{ Exception() string }
	if errors.As(err, &remote) {
		class := remote.Exception()
		switch class = class[strings.LastIndexByte(class, '.')+1:]; class {
		case "SafeModeException":
			return "safe_mode"
		case "StandbyException", "RetriableException":
			return "standby"
		case "NSQuotaExceededException", "DSQuotaExceededException", "QuotaExceededException", "QuotaByStorageTypeExceededException":
			return "quota"
		}
	}
	var network net.Error
	switch {
	case err == nil:
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return "not_found"
	case errors.Is(err, fs.ErrExist):
		return "exists"
	case errors.Is(err, fs.ErrPermission):
		return "permission"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "disk_full"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "timeout"
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "no available namenodes"): // the library keeps only the text
		return "unreachable"
	}
	return "other"
}
