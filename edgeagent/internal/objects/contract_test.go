package objects_test

import (
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects/objectstest"
)

func TestMain(m *testing.M) { objectstest.Main(m, objectstest.Objects) }

func TestStore(t *testing.T) { objectstest.Run(t, objectstest.Objects) }
