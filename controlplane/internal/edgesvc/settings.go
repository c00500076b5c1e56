package edgesvc

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

var settingsKey = topology.Key{Kind: topology.KindSettings}

// readSettings are the newest settings for the edge, whatever the rollout holds back. The stream
// counts them as sent.
func (st *stream) readSettings() (*edgev1.Welcome_Settings, error) {
	stored, _ := st.svc.cfg.Feed.Get(settingsKey)
	settings := new(topologyv1.Settings)
	if err := proto.Unmarshal(stored.Value, settings); err != nil {
		return nil, status.Errorf(codes.Internal, "decode settings: %v", err)
	}
	st.settings = stored.ModRevision
	media := st.svc.cfg.MediaURL
	if st.edge != nil {
		media = st.svc.cfg.JoinedMediaURL
	}
	return &edgev1.Welcome_Settings{
		SharedHost: settings.GetSharedHost(), MediaUrl: media, AcmeThumbprint: settings.GetAcmeThumbprint(),
	}, nil
}

// prepare sends what has changed of the settings and of the keys of secrets. Whoever sends a step
// or a bookmark calls it first: the store has the keys of a step before it publishes the step, and
// an edge that has acknowledged the step in which the settings changed goes by them.
func (st *stream) prepare() error {
	if stored, _ := st.svc.cfg.Feed.Get(settingsKey); stored.ModRevision != st.settings {
		settings, err := st.readSettings()
		if err != nil {
			return err
		}
		err = st.message("settings",
			&edgev1.SyncResponse{Message: &edgev1.SyncResponse_Settings{Settings: settings}})
		if err != nil {
			return err
		}
	}
	return st.sendKeys()
}
