-- What the demo's compliance engine knows: regulations (RegEngine) and the rules that refer to them. Safe to run again.

INSERT INTO regulations (code, title, document) VALUES
    ('cold-chain', 'Cold chain of prepared food', '{"max_temperature_c": 5, "max_delivery_minutes": 90, "max_hours_since_prep": 36}'),
    ('hot-holding', 'Hot holding of prepared food', '{"min_temperature_c": 60, "max_delivery_minutes": 60}'),
    ('allergens', 'Allergens that must be declared',
     '{"known": ["celery", "crustaceans", "eggs", "fish", "gluten", "lupin", "milk", "molluscs", "mustard", "nuts", "peanuts", "sesame", "soya", "sulphites"]}'),
    ('kitchen-permits', 'Permits of commercial kitchens',
     '{"kinds": ["commissary", "shared-kitchen", "restaurant"], "min_days_valid": 1, "min_inspection_grade": 80}'),
    ('alcohol', 'Delivery of alcoholic drinks', '{"min_age": 21, "max_units": 12, "regions": ["CA", "NV", "OR", "WA"]}'),
    ('order-limits', 'Limits of one order', '{"max_items": 60, "max_amount_minor": 250000, "currencies": ["usd"]}')
ON CONFLICT (code) DO NOTHING;

INSERT INTO compliance_rules (rule_set, name, expression) VALUES
    ('food-safety', 'cold-items-are-cold',
     '{"each": ["items", {"any": [{"!=": [{"item": "holding"}, "cold"]},
        {"<=": [{"item": "temperature_c"}, {"regulation": ["cold-chain", "max_temperature_c"]}]}]}]}'),
    ('food-safety', 'hot-items-are-hot',
     '{"each": ["items", {"any": [{"!=": [{"item": "holding"}, "hot"]},
        {">=": [{"item": "temperature_c"}, {"regulation": ["hot-holding", "min_temperature_c"]}]}]}]}'),
    ('food-safety', 'prepared-recently',
     '{"each": ["items", {"<=": [{"item": "hours_since_prep"}, {"regulation": ["cold-chain", "max_hours_since_prep"]}]}]}'),
    ('food-safety', 'delivered-in-time',
     '{"<=": [{"order": "delivery.minutes"}, {"regulation": ["cold-chain", "max_delivery_minutes"]}]}'),
    ('food-safety', 'kitchen-is-permitted',
     '{"all": [{"in": [{"order": "kitchen.permit"}, {"regulation": ["kitchen-permits", "kinds"]}]},
        {">=": [{"order": "kitchen.permit_days_left"}, {"regulation": ["kitchen-permits", "min_days_valid"]}]},
        {">=": [{"order": "kitchen.inspection_grade"}, {"regulation": ["kitchen-permits", "min_inspection_grade"]}]}]}'),

    ('allergens', 'allergens-are-known',
     '{"each": ["items", {"subset": [{"item": "allergens"}, {"regulation": ["allergens", "known"]}]}]}'),
    ('allergens', 'no-allergen-of-the-guest',
     '{"each": ["items", {"not": {"in": [{"order": "guest.allergy"}, {"item": "allergens"}]}}]}'),
    ('allergens', 'order-within-limits',
     '{"all": [{"<=": [{"order": "amount_minor"}, {"regulation": ["order-limits", "max_amount_minor"]}]},
        {"in": [{"order": "currency"}, {"regulation": ["order-limits", "currencies"]}]}]}'),

    ('alcohol', 'guest-is-of-age',
     '{"any": [{"==": [{"order": "alcohol_units"}, 0]}, {">=": [{"order": "guest.age"}, {"regulation": ["alcohol", "min_age"]}]}]}'),
    ('alcohol', 'units-within-limit', '{"<=": [{"order": "alcohol_units"}, {"regulation": ["alcohol", "max_units"]}]}'),
    ('alcohol', 'region-allows-delivery',
     '{"any": [{"==": [{"order": "alcohol_units"}, 0]}, {"in": [{"order": "delivery.region"}, {"regulation": ["alcohol", "regions"]}]}]}')
ON CONFLICT (rule_set, name) DO NOTHING;

INSERT INTO users (user_ref) SELECT 'kitchen-' || lpad(number::text, 3, '0') FROM generate_series(1, 120) AS number
ON CONFLICT (user_ref) DO NOTHING;
