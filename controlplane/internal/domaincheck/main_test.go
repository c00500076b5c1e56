package domaincheck

import (
	"flag"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of the cases anew")

func TestMain(m *testing.M) {
	flag.Parse()
	storetest.Main(m)
}
