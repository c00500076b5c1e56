package dns01

import (
	"testing"

	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }
