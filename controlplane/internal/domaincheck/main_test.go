package domaincheck

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
)

var rewrite = flag.Bool("rewrite", false, "write what the cases tell anew")

func TestMain(m *testing.M) {
	flag.Parse()
	code := storetest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
