package guard

import (
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"
)

const (
	attributeDepthMax = 16
	integerMax        = 1 << 53 // Struct stores numbers as IEEE doubles, which are not exact for all integers beyond this.
)

// toStruct converts attributes to a Struct, strictly: a value without an exact form there is refused, because a
// condition would read another value than the application wrote. Errors contain the path, but never values.
func toStruct(attributes map[string]any, path string, depth int) (*structpb.Struct, error) {
	if depth > attributeDepthMax {
		return nil, tooDeep(path)
	}
	fields := make(map[string]*structpb.Value, len(attributes))
	for key, value := range attributes {
		if !utf8.ValidString(key) {
			return nil, unsendable(path, "a key is not Unicode text")
		}
		field, err := toValue(value, path+"."+key, depth)
		if err != nil {
			return nil, err
		}
		fields[key] = field
	}
	return &structpb.Struct{Fields: fields}, nil
}

func toValue(value any, path string, depth int) (*structpb.Value, error) {
	switch value := value.(type) {
	case nil:
		return structpb.NewNullValue(), nil
	case bool:
		return structpb.NewBoolValue(value), nil
	case string:
		if !utf8.ValidString(value) {
			return nil, unsendable(path, "not Unicode text")
		}
		return structpb.NewStringValue(value), nil
	case int:
		return integer(int64(value), path)
	case int8:
		return integer(int64(value), path)
	case int16:
		return integer(int64(value), path)
	case int32:
		return integer(int64(value), path)
	case int64:
		return integer(value, path)
	case uint:
		return unsigned(uint64(value), path)
	case uint8:
		return unsigned(uint64(value), path)
	case uint16:
		return unsigned(uint64(value), path)
	case uint32:
		return unsigned(uint64(value), path)
	case uint64:
		return unsigned(value, path)
	case float32:
		return number(float64(value), path)
	case float64:
		return number(value, path)
	case []string:
		items := make([]any, len(value))
		for i, item := range value {
			items[i] = item
		}
		return toList(items, path, depth+1)
	case []any:
		return toList(value, path, depth+1)
	case map[string]any:
		object, err := toStruct(value, path, depth+1)
		return structpb.NewStructValue(object), err
	default:
		return nil, unsendable(path, fmt.Sprintf("%T has no form in JSON", value))
	}
}

func toList(items []any, path string, depth int) (*structpb.Value, error) {
	if depth > attributeDepthMax {
		return nil, tooDeep(path)
	}
	values := make([]*structpb.Value, len(items))
	for i, item := range items {
		value, err := toValue(item, fmt.Sprintf("%s[%d]", path, i), depth)
		if err != nil {
			return nil, err
		}
		values[i] = value
	}
	return structpb.NewListValue(&structpb.ListValue{Values: values}), nil
}

func integer(value int64, path string) (*structpb.Value, error) {
	if value > integerMax || value < -integerMax {
		return nil, unsendable(path, "an integer beyond 2^53 is not exact; send a string")
	}
	return structpb.NewNumberValue(float64(value)), nil
}

func unsigned(value uint64, path string) (*structpb.Value, error) {
	return integer(int64(min(value, integerMax+1)), path)
}

func number(value float64, path string) (*structpb.Value, error) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return nil, unsendable(path, "a number must be finite")
	}
	return structpb.NewNumberValue(value), nil
}

func tooDeep(path string) error {
	return unsendable(path, fmt.Sprintf("deeper than %d levels", attributeDepthMax))
}
