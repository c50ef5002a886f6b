package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// otlpWire receives OTLP as JSON, which shows what a Telegraf that receives does not write: units, times, and which attributes
// are of the resource.
type otlpWire struct {
	t   *testing.T
	url string

	mutex    sync.Mutex
	requests [][]byte
}

func startOTLPWire(t *testing.T) *otlpWire {
	t.Helper()
	w := &otlpWire{t: t}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		w.mutex.Lock()
		w.requests = append(w.requests, body)
		w.mutex.Unlock()
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, "{}")
	}))
	t.Cleanup(server.Close)
	w.url = server.URL + "/v1/metrics"
	return w
}

// The messages of OTLP, as far as they are checked.
type (
	otlpRequest struct {
		ResourceMetrics []struct {
			Resource     struct{ Attributes []otlpAttribute }
			ScopeMetrics []struct{ Metrics []otlpMetric }
		}
	}
	otlpMetric struct {
		Name, Unit, Description string
		Gauge                   *struct{ DataPoints []otlpDataPoint }
		Sum                     *struct {
			DataPoints             []otlpDataPoint
			AggregationTemporality int
			IsMonotonic            bool
		}
	}
	otlpDataPoint struct {
		Attributes        []otlpAttribute
		StartTimeUnixNano string
	}
	otlpAttribute struct {
		Key   string
		Value map[string]any
	}
)

const otlpCumulative = 2

// requireDocumented checks what the document says of attributes of the resource, and of what is lost.
func (w *otlpWire) requireDocumented(names otlpNames) {
	w.t.Helper()
	w.mutex.Lock()
	requests := slices.Clone(w.requests)
	w.mutex.Unlock()
	sums := 0
	for _, body := range requests {
		var request otlpRequest
		require.NoError(w.t, json.Unmarshal(body, &request))
		for _, resource := range request.ResourceMetrics {
			w.requireAttributes(names, resource.Resource.Attributes, true)
			for _, scope := range resource.ScopeMetrics {
				for _, metric := range scope.Metrics {
					require.Empty(w.t, metric.Unit+metric.Description, metric.Name)
					var points []otlpDataPoint
					if metric.Gauge != nil {
						points = metric.Gauge.DataPoints
					} else {
						require.NotNil(w.t, metric.Sum, metric.Name)
						require.True(w.t, metric.Sum.IsMonotonic, metric.Name)
						require.Equal(w.t, otlpCumulative, metric.Sum.AggregationTemporality, metric.Name)
						points = metric.Sum.DataPoints
						sums++
					}
					require.NotEmpty(w.t, points, metric.Name)
					for _, p := range points {
						require.Empty(w.t, p.StartTimeUnixNano, metric.Name)
						w.requireAttributes(names, p.Attributes, false)
					}
				}
			}
		}
	}
	require.Positive(w.t, sums)
}

func (w *otlpWire) requireAttributes(names otlpNames, attributes []otlpAttribute, ofResource bool) {
	w.t.Helper()
	for _, a := range attributes {
		documented, found := names.attributes[a.Key]
		require.True(w.t, found, a.Key)
		require.Equal(w.t, documented, ofResource, "%s is an attribute of the resource", a.Key)
		require.Contains(w.t, a.Value, "stringValue", a.Key)
	}
}
